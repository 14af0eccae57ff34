"""What can be wrong with a request or with a model's files, said so that the reader can mend it."""

from __future__ import annotations

import math
from typing import Any


class InvalidRequest(ValueError):
    """A value in a request that cannot be served: Triton's INVALID_ARG.

    `field` is the name of the setting or tensor, `allowed` says what it takes. The text is
    `FIELD: got VALUE; allowed: ALLOWED`, with long values shortened.
    """

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        self.field = field if field.isidentifier() and len(field) <= 40 else shorten(field, 40)
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


class LoopClosed(Exception):
    """The loop was closed before the image was finished, or had been when it came."""


class Unavailable(Exception):
    """No more requests are taken now: later they will be, or by another server."""


class NotFinite(ArithmeticError):
    """NaN or infinity where the numbers of a picture should be."""


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
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, tuple) and all(type(item) is int for item in value):
        return f"[{', '.join(shorten(item) for item in value)}]"
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"
