"""What a request says that makes no mark on its picture, or not the mark it may mean: warnings."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from triptych import schedulers, webui_prompt
from triptych.errors import shorten
from triptych.settings import Settings
from triptych.trained_words import words_in

_OF_WEBUI = re.compile(
    r"<(?:lora|lyco|hypernet):[^<>]*>|\([^()]*[^()\d\s]\s*:\s*(?:\d+(?:\.\d+)?|\.\d+)\s*\)"
)
"""The WebUI's syntax where prompts are plain: networks, and words with a number as weight."""

_OF_OTHERS = re.compile(
    r"\bembedding:[\w.-]+"  # ComfyUI's name of an embedding
    r"|\{[^{}|]*\|[^{}]*\}|__[\w/*-]+__"  # alternatives and wildcards of the WebUI's extensions
    r"|:\s*\d+,\d+\s*(?=\))"  # a weight with a comma
)
_TOKEN = re.compile(r"<[\w.-]+>")
_BRACKET = re.compile(r"\\.|[()\[\]]", re.DOTALL)
_SHOWN = 3


def warnings_of(
    settings: Settings,
    takes_negative: bool,
    knows: Callable[[str], bool],
    trained: Collection[str] | None = None,
) -> list[str]:
    """Warnings about an image's prompts, and about settings that it does not use.

    takes_negative: whether the model takes a negative prompt at all. `knows` tells whether a text
    such as `<toy>` is a token that was added to the model. `trained` are the words that the model
    was trained on, None where its files do not say.
    """
    found = []
    for field, prompt in settings.prompts().items():
        tokens = _TOKEN.findall(prompt)
        if settings.prompt_syntax == "webui":
            odd = [*_OF_OTHERS.findall(prompt), *(one for one in tokens if not knows(one))]
            found += _as_words(field, odd, "")
            found += _brackets(field, prompt)
        else:
            odd = _OF_WEBUI.findall(prompt)
            found += _as_words(field, odd, ": no LoRA, no weights")
        if trained is not None:
            text = _text_of(field, prompt, settings.prompt_syntax)
            for part in (*odd, *filter(knows, tokens)):
                text = text.replace(part, " ")
            words = [one for one in words_in(text) if one not in trained and not knows(one)]
            found += _untrained(field, words)
    return found + _of_guidance(settings, takes_negative)


def _of_guidance(settings: Settings, takes_negative: bool) -> list[str]:
    """Of what guidance alone uses, that which the image's guidance does not use."""
    strength = 1.0 if settings.strength is None else settings.strength
    steps = schedulers.steps_made(settings.num_inference_steps, strength)
    names = ("negative_prompt", "negative_prompt_2", "guidance_rescale")
    asked = {name: getattr(settings, name) for name in names}
    if not takes_negative or settings.guidance_scale <= 1:
        asked["guidance_start"] = settings.guidance_start
        asked["guidance_stop"] = settings.guidance_stop not in (None, 1)
        why = (
            f"at guidance_scale {settings.guidance_scale:g}" if takes_negative else "by this model"
        )
    elif not settings.guided_steps(steps):
        why = "where no step is between guidance_start and guidance_stop"
    else:
        return []
    return [f"{name} is not used {why}" for name, value in asked.items() if value]


def _as_words(field: str, parts: list[str], more: str) -> list[str]:
    shown = ", ".join(shorten(one) for one in parts[:_SHOWN])
    return [f"{field}: {shown} is read as words{more}"] if parts else []


def _text_of(field: str, prompt: str, syntax: str | None) -> str:
    """What of a prompt is text: without weights, BREAK and LoRAs where they are none."""
    if syntax != "webui":
        return prompt
    parts = webui_prompt.parse(field, webui_prompt.without_loras(prompt))
    return "\n".join(text for part in parts for text, _ in part)


def _untrained(field: str, words: list[str]) -> list[str]:
    shown = [shorten(word) for word in words[:_SHOWN]] + ["..."] * (len(words) > _SHOWN)
    return [f"{field}: this model does not know {', '.join(shown)}"] if words else []


def _brackets(field: str, prompt: str) -> list[str]:
    """Of the WebUI's brackets, those that are never closed and those that were never opened."""
    open_at: dict[str, list[int]] = {"(": [], "[": []}
    stray = []
    for match in _BRACKET.finditer(prompt):
        mark = match[0]
        if mark in open_at:
            open_at[mark].append(match.start())
        elif mark in (")", "]"):
            opened = open_at["(" if mark == ")" else "["]
            if opened:
                opened.pop()
            else:
                stray.append(prompt[max(0, match.start() - 20) : match.end()])
    left = [prompt[at : at + 20] for at in sorted(open_at["("] + open_at["["])]
    found = []
    if left:
        found.append(f"{field}: {shorten(left[0])} is never closed and weighs all that follows")
    if stray:
        found.append(f"{field}: the bracket after {shorten(stray[0][:-1])} is read as a character")
    return found
