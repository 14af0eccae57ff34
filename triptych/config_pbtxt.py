"""What another model's config.pbtxt says, for stages that must agree with it.

Triton tells a Python model its own configuration alone. Its neighbours' are files of protobuf's
text format, of which this reads what such a file holds: fields, messages, lists, texts, numbers,
names and comments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Dict, List

from triptych.errors import ModelFileError

Message = Dict[str, List[Any]]
"""All values of each field, in the file's order: texts and names as str, messages as Message."""

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<word>[\w.+-]+) | (?P<sign>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_CLOSES = {"{": "}", "<": ">"}


def read(path: Path) -> Message:
    """The fields of the file; ModelFileError if it is not there or cannot be understood."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"cannot be read ({reason})"
        raise ModelFileError(path, problem, "see Triton's own error for this model") from error


def parse(text: str) -> Message:
    """The fields of a config.pbtxt; ValueError where it is none."""
    tokens = list(_tokens(text))
    tokens.reverse()
    return _message(tokens, "")


def parameters(config: Message) -> dict[str, str]:
    """The model's `parameters`, as Triton gives them to the model itself."""
    entries = _entries(config)
    return {key: str(value.get("string_value", [""])[-1]) for key, value in entries.items()}


def accelerators(config: Message, kind: str = "gpu_execution_accelerator") -> dict[str, dict]:
    """The parameters of each execution accelerator of that kind, by the accelerator's name."""
    found: dict[str, dict] = {}
    for optimization in config.get("optimization", ()):
        for group in optimization.get("execution_accelerators", ()):
            for entry in group.get(kind, ()):
                found[entry.get("name", [""])[-1]] = _entries(entry)
    return found


def _entries(message: Message) -> dict[str, Any]:
    """The map field `parameters` of a message."""
    entries = message.get("parameters", ())
    return {entry["key"][-1]: entry["value"][-1] for entry in entries if "value" in entry}


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Kind and characters of each token: a text, a word or a sign."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise ValueError(f"line {line}: {text[position]!r} is out of place")
        position = match.end()
        if match.lastgroup:
            yield match.lastgroup, match.group()


def _message(tokens: list[tuple[str, str]], end: str) -> Message:
    """The fields up to the sign `end`, taken off the end of `tokens`, which are in reverse."""
    message: Message = {}
    while tokens and tokens[-1] != ("sign", end):
        kind, name = tokens.pop()
        if kind != "word":
            raise ValueError(f"{name} stands where a field's name should")
        if tokens and tokens[-1] == ("sign", ":"):
            tokens.pop()
        message.setdefault(name, []).extend(_values(tokens))
        if tokens and tokens[-1] in (("sign", ","), ("sign", ";")):
            tokens.pop()
    if end:
        _take(tokens, end)
    return message


def _values(tokens: list[tuple[str, str]]) -> list[Any]:
    """One field's values: one, or those of a list in brackets."""
    if not tokens or tokens[-1] != ("sign", "["):
        return [_value(tokens)]
    tokens.pop()
    values = []
    while tokens and tokens[-1] != ("sign", "]"):
        values.append(_value(tokens))
        if tokens and tokens[-1] == ("sign", ","):
            tokens.pop()
    _take(tokens, "]")
    return values


def _value(tokens: list[tuple[str, str]]) -> Any:
    if not tokens:
        raise ValueError("it ends where a value should stand")
    kind, said = tokens.pop()
    if kind == "sign":
        if said not in _CLOSES:
            raise ValueError(f"{said} stands where a value should")
        return _message(tokens, _CLOSES[said])
    if kind == "word":
        return said
    text = ast.literal_eval(said)
    while tokens and tokens[-1][0] == "text":  # texts side by side are one
        text += ast.literal_eval(tokens.pop()[1])
    return text


def _take(tokens: list[tuple[str, str]], sign: str) -> None:
    if not tokens or tokens.pop() != ("sign", sign):
        raise ValueError(f"{sign} is missing")
