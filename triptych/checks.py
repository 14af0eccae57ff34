"""Checks of a request's values: each gives its value, or raises InvalidRequest with its name."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from triptych import schedulers
from triptych.errors import InvalidRequest
from triptych.limits import MAX_CACHE_INTERVAL, MAX_SIZE, Limits

MAX_TIMEOUT = 1e6
"""Seconds that a request may have at the most; none is no limit."""


def optional(check: Callable, name: str, values: Mapping[str, Any], *allowed: Any) -> Any:
    """`check(name, values[name], *allowed)`; None where `values` has no such name."""
    return check(name, values[name], *allowed) if name in values else None


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


def two_integers(field: str, value: Any) -> tuple[int, int]:
    """`value`, two whole numbers, of pixels: a height and a width, or a top and a left."""
    two = isinstance(value, (list, tuple)) and len(value) == 2
    if not two or not all(type(one) is int and 0 <= one <= MAX_SIZE for one in value):
        raise InvalidRequest(field, value, f"a list of two integers from 0 to {MAX_SIZE}")
    return (value[0], value[1])


def real(field: str, value: Any, high: float) -> float:
    """`value`, a number from 0 to `high`."""
    if not is_number(value) or not 0 <= value <= high:
        raise InvalidRequest(field, value, f"a number from 0 to {high}")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether `value` is a number of JSON."""
    return type(value) in (int, float)


def number(value: Any) -> Any:
    """The number that `value` is the text of; `value` itself where it is no such text."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"-?[0-9]{1,20}", value):
        return int(value)
    is_real = re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,2})?", value)
    return float(value) if is_real else value


def one_of(field: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value`, one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequest(field, value, f"one of {', '.join(choices)}")
    return value


def size(values: Mapping[str, Any], limits: Limits, multiple: int) -> tuple[int, int]:
    """`height` and `width` in `values`, a picture's: multiples of `multiple`, within the limits."""
    low = -(-limits.min_side // multiple) * multiple
    room = limits.max_pixels // low
    for field in ("width", "height"):
        side = values[field]
        high = min(getattr(limits, f"max_{field}"), room) // multiple * multiple
        if type(side) is not int or not low <= side <= high:
            allowed = f"a whole number from {low} to {high}{_too_large(values, limits, multiple)}"
            raise InvalidRequest(field, side, allowed)
        if side % multiple:
            raise InvalidRequest(field, side, nearest(side, multiple))
        room = limits.max_pixels // side
    return values["height"], values["width"]


def nearest(side: int, multiple: int) -> str:
    """What is allowed in the place of a side that is no multiple of `multiple`."""
    below = side - side % multiple
    return f"{below} or {below + multiple}, the nearest sizes"


def _too_large(values: Mapping[str, Any], limits: Limits, multiple: int) -> str:
    """Why a size is refused whose sides together are too many pixels; empty for another."""
    width, height = values["width"], values["height"]
    if type(width) is not int or type(height) is not int or width * height <= limits.max_pixels:
        return ""
    across, down = limits.max_width, limits.max_height
    if across * down > limits.max_pixels:
        across = down = math.isqrt(limits.max_pixels) // multiple * multiple
    return f", as {width} x {height} is too large: at most {across} x {down} in total"


def scheduler(value: Any, config: Mapping[str, Any]) -> str:
    """The short name of the scheduler that `value` names; see `schedulers.resolve`."""
    if not isinstance(value, str):
        raise InvalidRequest("scheduler", value, schedulers.ALLOWED)
    return schedulers.resolve(value, config)


def strength(values: Mapping[str, Any]) -> float | None:
    """The `strength` in `values`, by which at least one step is made; None without one."""
    found = optional(real, "strength", values, 1.0)
    if found is not None:
        schedulers.steps_made(values["num_inference_steps"], found)
    return found


def guidance_window(values: Mapping[str, Any]) -> dict[str, float | None]:
    """`guidance_start` and `guidance_stop` in `values`, in this order; None for one not there."""
    names = ("guidance_start", "guidance_stop")
    start, stop = (optional(real, name, values, 1) for name in names)
    if start is not None and stop is not None and start > stop:
        raise InvalidRequest("guidance_start", start, f"at most guidance_stop, which is {stop:g}")
    return dict(zip(names, (start, stop)))


def cache_interval(values: Mapping[str, Any]) -> int | None:
    """The `cache_interval` in `values`; None without one."""
    return optional(integer, "cache_interval", values, MAX_CACHE_INTERVAL)


def deadline(timeout: Any) -> float:
    """The time of the monotonic clock that is `timeout` seconds from now."""
    if not is_number(timeout) or not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidRequest("timeout", timeout, f"seconds, over 0 to {MAX_TIMEOUT:.0f}")
    return time.monotonic() + timeout
