"""The WebUI's prompt syntax: text with weights, in parts that BREAK parts.

    (words)       the words weigh 1.1 times as much, ((words)) 1.21 times
    [words]       1.1 times less
    (words:1.3)   1.3 times as much
    \\( \\) \\[ \\] \\\\  the character itself
    BREAK         what follows begins a new chunk of tokens
    <lora:ink:0.8>  in a prompt: no words, but a LoRA and its scale; 1 if it is not said

A bracket that is never closed weighs all that follows it; one that was never opened is a character.
"""

from __future__ import annotations

import re
from typing import Iterator, List, Tuple

from triptych.errors import InvalidRequest
from triptych.lora import request as lora_request
from triptych.lora.request import Lora
from triptych.settings import Settings

Part = List[Tuple[str, float]]
"""Texts with their weights, in order."""

STEP = 1.1
"""What a pair of brackets multiplies by, or divides."""
MOST_OPEN = 64
"""Brackets that may be open at one place."""
MOST_WEIGHT = 100.0

_MARK = re.compile(
    r"\\(?P<escaped>[()\[\]\\])"
    r"|:\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)"
    r"|(?P<bracket>[()\[\]])"
    r"|\b(?P<part>BREAK)\b"
)
_NUMBER = re.compile(r":\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*$")
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
_LORA = re.compile(r"<lora:([^<>:]*)(?::([^<>]*))?>")


def loras_of(settings: Settings) -> tuple[Lora, ...]:
    """All LoRAs of an image, those in its prompt too; InvalidRequest for too many, or one twice."""
    asked = list(settings.loras or ())
    if settings.prompt_syntax == "webui":
        for tag in _LORA.finditer(settings.prompt):
            name, scale = tag.groups()
            try:
                number = float(scale or 1)
            except ValueError:
                allowed = "<lora:name:scale>, with one number"
                raise InvalidRequest("prompt", tag[0], allowed) from None
            asked.append(lora_request.one(name, number))
    return lora_request.checked(asked)


def without_loras(prompt: str) -> str:
    """The prompt's words."""
    return _LORA.sub("", prompt)


def parse(field: str, prompt: str) -> list[Part]:
    """The parts of `prompt`, at least one; parts may be empty.

    InvalidRequest, naming `field`, for words of the WebUI's syntax that are not served.
    """
    _refuse_others(field, prompt)
    texts: list[str] = []
    weights: list[float] = []
    breaks: list[int] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(first: int, factor: float) -> None:
        for at in range(first, len(weights)):
            weights[at] *= factor

    def add(text: str) -> None:
        if text:
            texts.append(text)
            weights.append(1.0)

    end = 0
    for match in _MARK.finditer(prompt):
        add(prompt[end : match.start()])
        end = match.end()
        bracket = match["bracket"]
        if match["escaped"]:
            add(match["escaped"])
        elif match["part"]:
            breaks.append(len(texts))
        elif match["weight"] and opened["("]:
            weigh(opened["("].pop(), float(match["weight"]))
        elif bracket in ("(", "["):
            opened[bracket].append(len(texts))
        elif bracket == ")" and opened["("]:
            weigh(opened["("].pop(), STEP)
        elif bracket == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / STEP)
        else:
            add(match[0])
    add(prompt[end:])
    for first in opened["("]:
        weigh(first, STEP)
    for first in opened["["]:
        weigh(first, 1 / STEP)
    if not all(abs(weight) <= MOST_WEIGHT for weight in weights):  # NaN neither
        raise InvalidRequest(field, prompt, f"weights from -{MOST_WEIGHT:g} to {MOST_WEIGHT:g}")
    bounds = [0, *breaks, len(texts)]
    return [
        list(_joined(texts[first:last], weights[first:last]))
        for first, last in zip(bounds, bounds[1:])
    ]


def _joined(texts: list[str], weights: list[float]) -> Iterator[tuple[str, float]]:
    """Neighbours of one weight as one text: words are read as they stand side by side."""
    text, weight = "", 1.0
    for one, its in zip(texts, weights):
        if text and its != weight:
            yield text, weight
            text = ""
        text, weight = text + one, its
    if text:
        yield text, weight


def _refuse_others(field: str, prompt: str) -> None:
    """InvalidRequest for what would change the picture and is not served, by its name."""
    found = _NETWORK.search(prompt)
    if found:
        _refuse(
            field, found[0], f"a network in the {field}, but for <lora:name:scale> in a prompt,"
        )
    if re.search(r"\bAND\b", prompt):
        _refuse(field, prompt, "AND, which joins several prompts,")
    open_at: list[tuple[str, int]] = []
    bars: set[int] = set()
    for match in re.finditer(r"\\.|[()\[\]|]", prompt, re.DOTALL):
        mark = match[0]
        if len(open_at) > MOST_OPEN:
            raise InvalidRequest(field, prompt, f"at most {MOST_OPEN} brackets in each other")
        if mark in "([":
            open_at.append((mark, match.start()))
        elif mark == "|" and open_at and open_at[-1][0] == "[":
            bars.add(open_at[-1][1])
        elif mark in ")]" and open_at and open_at[-1][0] == "(["[mark == "]"]:
            kind, start = open_at.pop()
            inside = prompt[start + 1 : match.start()]
            if kind == "[" and start in bars:
                _refuse(field, f"[{inside}]", "alternation, [a|b],")
            if kind == "[" and _NUMBER.search(inside[-40:]):
                _refuse(field, f"[{inside}]", "a change at a step, [a:b:0.4],")


def _refuse(field: str, value: str, what: str) -> None:
    allowed = f"words, (words:1.2), [words] and BREAK; {what} is not served"
    raise InvalidRequest(field, value, allowed)
