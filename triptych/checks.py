"""Checks of one value in a request: each gives it, or raises InvalidRequest with its name."""

from __future__ import annotations

from typing import Any

from triptych.errors import InvalidRequest
from triptych.limits import Limits


def text(field: str, value: Any, limits: Limits) -> str:
    """`value`, a prompt within the limits."""
    encoded = utf8(value)
    if encoded is None or b"\0" in encoded or len(encoded) > limits.max_prompt_bytes:
        allowed = f"a text of at most {limits.max_prompt_bytes} bytes of UTF-8, without NUL"
        raise InvalidRequest(field, value, allowed)
    return value


def utf8(value: Any) -> bytes | None:
    """The bytes of a text; None for no text, or with half a surrogate pair, as JSON can escape."""
    try:
        return value.encode() if isinstance(value, str) else None
    except UnicodeEncodeError:
        return None


def integer(field: str, value: Any, high: int, low: int = 1) -> int:
    """`value`, a whole number from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(field, value, f"an integer from {low} to {high}")
    return value


def real(field: str, value: Any, high: float) -> float:
    """`value`, a number from 0 to `high`."""
    if not is_number(value) or not 0 <= value <= high:
        raise InvalidRequest(field, value, f"a number from 0 to {high}")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether `value` is a number of JSON."""
    return type(value) in (int, float)


def one_of(field: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value`, one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequest(field, value, f"one of {', '.join(choices)}")
    return value
