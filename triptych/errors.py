"""The errors of the project, and how they are recognised after Triton has passed on their text.

An error that a stage gives reaches another stage, or a client's stream, as a text without its code.
`KINDS` is the one table of exceptions, Triton's codes and the words by which a text is known.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple


class InvalidRequest(ValueError):
    """A value in a request that cannot be served: Triton's INVALID_ARG.

    `field` is the name of the setting or tensor, `allowed` says what it takes. The text is
    `FIELD: got VALUE; allowed: ALLOWED`, with long values shortened.
    """

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        is_name = field.replace(".", "_").isidentifier() and len(field) <= 40
        self.field = field if is_name else shorten(field, 40)
        self.value = value
        self.allowed = allowed
        super().__init__(f"{self.field}: got {shorten(value)}; allowed: {allowed}")

    def __reduce__(self) -> tuple:
        return type(self), (self.field, self.value, self.allowed)


class ModelFileError(ValueError):
    """A file of the served model that is missing, unreadable or makes no sense: a load error."""

    def __init__(self, path: Any, problem: str, fix: str) -> None:
        super().__init__(f"{path}: {problem}; {fix}")


class Expired(Exception):
    """The time that the client gave its request is over: work on it has ended."""


class Cancelled(Exception):
    """The image was given up by whoever asked for it, before it was finished."""


class Unavailable(Exception):
    """No more requests are taken now: later they will be, or by another server."""


class LoopClosed(Unavailable):
    """The denoising loop was closed before the image was finished, or had been when it came."""


class NotFinite(ArithmeticError):
    """NaN or infinity where the numbers of a picture should be."""


class Kind(NamedTuple):
    """One row of `KINDS`: `error` is None for what only Triton itself says."""

    error: type[Exception] | None
    code: str
    words: re.Pattern


_INVALID = re.compile(
    r"""(?:^|:\ )
    (?P<text>
        (?P<field> [\w.]+ | (?P<quote>['"]).*?(?P=quote)(?:\.\.\.\ \(\d+\ \w+\))? )
        :\ got\ .*;\ allowed:\ .*
    )""",
    re.DOTALL | re.VERBOSE,
)

KINDS = (
    Kind(InvalidRequest, "INVALID_ARG", _INVALID),
    Kind(Expired, "CANCELLED", re.compile(r"timeout: the request's time was over")),
    Kind(Cancelled, "CANCELLED", re.compile(r"cancelled before the image was finished")),
    Kind(LoopClosed, "UNAVAILABLE", re.compile(r"the denoising loop (is|was) closed")),
    Kind(Unavailable, "UNAVAILABLE", re.compile(r"[;,] try later|takes no more requests")),
    Kind(None, "UNAVAILABLE", re.compile(r"Exceeds maximum queue size|Server (not ready|is stop)")),
    Kind(None, "NOT_FOUND", re.compile(r"unknown model")),
)
"""The first row that fits is meant. Triton has no code of its own for a deadline."""


def kind_of(text: str) -> Kind | None:
    """The row of `KINDS` for the text of an error, None for a failure."""
    return next((kind for kind in KINDS if kind.words.search(text)), None)


def code_of(error: Exception) -> str:
    """Triton's name of an error's code, INTERNAL for one that is not in `KINDS`."""
    for kind in KINDS:
        if kind.error is not None and isinstance(error, kind.error):
            return kind.code
    return getattr(error, "code", "INTERNAL")


def invalid_of(text: str) -> tuple[str, str] | None:
    """The field and the text of the InvalidRequest in an error's text; None if there is none."""
    found = _INVALID.search(text)
    return (found["field"], found["text"]) if found else None


_PASSED_ON = re.compile(r"^([\w.-]+_stream: )?(in ensemble '[\w.-]+', )?")


def plain(text: str) -> str:
    """An error's text without the ensembles that have passed it on.

    What is wrong with a request says so itself; of all else the name of the stage stays.
    """
    invalid = invalid_of(text)
    return invalid[1] if invalid else _PASSED_ON.sub("", text)


def one_line(error: Exception) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split())


def shorten(value: Any, length: int = 60) -> str:
    """One line that shows `value`, a JSON value or bytes, in at most about `length` characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (str, bytes)):
        if len(value) <= length:
            return repr(value)
        unit = "bytes" if isinstance(value, bytes) else "characters"
        return f"{value[:length]!r}... ({len(value)} {unit})"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else f"a {value.bit_length()}-bit number"
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(value)
        return "NaN" if math.isnan(value) else "-Infinity" if value < 0 else "Infinity"
    if value in ({}, []):
        return str(value)
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, tuple) and all(type(item) is int for item in value):
        return f"[{', '.join(shorten(item) for item in value)}]"
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"
