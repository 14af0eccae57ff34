"""Texts that make a careless pattern try the same characters again and again."""

import time

import pytest

from triptych import webui_prompt
from triptych.errors import InvalidRequest, kind_of, plain
from triptych.gateway import reading
from triptych.json_object import json_object
from triptych.settings import REQUEST_KEYS, Settings
from triptych.trained_words import words_in
from triptych.unread import warnings_of

LENGTH = 16 * 1024
BEGINNINGS = ("", "(a:", "[a:", "(", "[", "<lora:", "<", "{", "{a|", "__", "embedding:", ":", '{"')
LETTERS = "1 a_.,:-(\\)[]<>{}|\"'/A"
UNITS = (*LETTERS, "1.", "a:1", "(a:1", ": ", "a ", "A ", ",A:", '\\"', "((a:", "__a")
TEXTS = [(one + LENGTH * unit)[:LENGTH] for one in BEGINNINGS for unit in UNITS]


def tolerant(work):
    def done(text):
        try:
            return work(text)
        except InvalidRequest:
            return None

    return done


def settings(syntax, prompt):
    return Settings(prompt, "", 4, 5.0, 1, 64, 64, "ddim", "png", prompt_syntax=syntax)


READERS = {
    "parse": lambda text: webui_prompt.parse("prompt", text),
    "loras_of": lambda text: webui_prompt.loras_of(settings("webui", text)),
    "warnings_of": lambda text: warnings_of(settings(None, text), True, lambda _: False, ["a"]),
    "warnings_of webui": lambda text: warnings_of(
        settings("webui", text), True, lambda _: False, ["a"]
    ),
    "words_in": words_in,
    "json_object": lambda text: json_object(text, "INPUT_0", REQUEST_KEYS),
    "infotext": lambda text: reading._of_webui(f"a\n{text}"),
    "error": lambda text: (kind_of(text), plain(text)),
}


@pytest.mark.parametrize("reader", READERS)
def test_none_of_them_takes_long(reader):
    read = tolerant(READERS[reader])
    took = {}
    for text in TEXTS:
        begun = time.process_time()
        read(text)
        took[text[:20]] = time.process_time() - begun
    slowest = max(took, key=took.get)
    assert took[slowest] < 0.5, (slowest, took[slowest])
