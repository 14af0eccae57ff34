"""Warnings about what a request says in vain."""

import dataclasses

import pytest

from triptych.settings import Settings
from triptych.unread import warnings_of

PLAIN = Settings("a fox", "", 20, 5.0, 7, 64, 64, "ddim", "png")


def warned(takes_negative=True, known=(), trained=None, **changed):
    settings = dataclasses.replace(PLAIN, **changed)
    return warnings_of(settings, takes_negative, known.__contains__, trained)


@pytest.mark.parametrize("syntax", [None, "webui"])
def test_words_alone_are_no_reason_to_warn(syntax):
    prompt = r"a (red:1.2) fox, [blue], at \(10:30\), <3, a_b, {x}, BREAK ((x))"
    assert warned(prompt=prompt if syntax else "a [blue] fox, {x}", prompt_syntax=syntax) == []


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a (red fox", "'(red fox' is never closed and weighs all that follows"),
        ("a [red (fox)", "'[red (fox)' is never closed and weighs all that follows"),
        ("a red) fox", "the bracket after 'a red' is read as a character"),
        (r"a \( red) fox", r"the bracket after 'a \\( red' is read as a character"),
        ("embedding:ink.pt x", "'embedding:ink.pt' is read as words"),
        ("a {red|blue} fox", "'{red|blue}' is read as words"),
        ("a __colour__ fox", "'__colour__' is read as words"),
        ("a (red:1,3) fox", "':1,3' is read as words"),
        ("<toy> and <cat-toy>", "'<toy>' is read as words"),
    ],
)
def test_what_the_webuis_syntax_does_not_have(prompt, told):
    known = ("<cat-toy>",)
    assert warned(prompt=prompt, prompt_syntax="webui", known=known) == [f"prompt: {told}"]
    negative = warned(negative_prompt=prompt, prompt_syntax="webui", known=known)
    assert negative == [f"negative_prompt: {told}"]


def test_plain_words_that_are_the_webuis_syntax():
    told = "prompt: '<lora:x:1>', '(red:1.3)' is read as words: no LoRA, no weights"
    assert warned(prompt="<lora:x:1> (red:1.3)") == [told]


def test_a_few_of_many_are_shown():
    (told,) = warned(prompt="{a|b} " * 9, prompt_syntax="webui")
    assert told.count("{a|b}") == 3


@pytest.mark.parametrize(
    ("prompt", "syntax", "told"),
    [
        ("a red fox", None, []),
        ('A Red, red-red FOX! <cat-toy> <3... "fox\'s"', None, ["'3'", '"fox\'s"']),
        ("a photo of a dog, a dog", None, ["'photo'", "'of'", "'dog'"]),
        ("four red dogs and 2 fox cubs", None, ["'four'", "'dogs'", "'and'", "..."]),
        (
            "\u72d0\u72f8, re\u0301d \U0001f98a",
            None,
            ["'\u72d0\u72f8'", "'r\xe9d'", "'\U0001f98a'"],
        ),
        ("a (red:1.2) <lora:ink:1> fox", None, []),
        ("a (re)d (cub:1.2) BREAK [fox] <lora:ink:0.8>", "webui", ["'re'", "'d'", "'cub'"]),
        ("a {x|y} __ink__ <cat-toy> <toy> (a:3000:1,3) fox", "webui", ["'3000'"]),
    ],
)
def test_words_that_the_model_was_not_trained_on(prompt, syntax, told):
    said = {"prompt": "a fox", "prompt_syntax": syntax, "prompt_2": "a fox"}
    for field in ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2"):
        asked = {**said, field: prompt, "known": ("<cat-toy>",)}
        if field != "prompt" and syntax:
            asked[field] = prompt.replace("<lora:ink:0.8>", "")
        found = warned(**asked, trained={"a", "red", "fox"})
        found = [one for one in found if "is read as words" not in one]
        assert found == ([f"{field}: this model does not know {', '.join(told)}"] if told else [])
        assert not any("does not know" in one for one in warned(**asked))


def test_what_guidance_alone_uses():
    asked = {"negative_prompt": "blue", "guidance_rescale": 0.7}
    assert warned(**asked) == []
    assert warned(**asked, guidance_scale=1) == [
        "negative_prompt is not used at guidance_scale 1",
        "guidance_rescale is not used at guidance_scale 1",
    ]
    window = {"guidance_start": 0.2, "guidance_stop": 0.5}
    assert warned(**window) == []
    assert warned(**window, guidance_scale=1) == [
        "guidance_start is not used at guidance_scale 1",
        "guidance_stop is not used at guidance_scale 1",
    ]
    assert warned(False, guidance_start=0, guidance_stop=1) == []
    (none,) = warned(negative_prompt="blue", guidance_stop=0.1, num_inference_steps=9)
    assert none.startswith("negative_prompt is not used where no step is between")
    assert warned(negative_prompt="blue", guidance_stop=0.1, num_inference_steps=10) == []
    told = "negative_prompt is not used by this model"
    assert warned(False, negative_prompt="blue") == [told]
    assert warned(False) == warned(guidance_scale=1) == []
