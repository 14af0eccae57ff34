"""The JSON object in a request's text, told from a text that is a prompt."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from triptych.errors import InvalidRequest


def json_object(text: str, field: str, keys: Sequence[str]) -> dict[str, Any] | None:
    """The JSON object that `text` is; None for a text that is not meant as one.

    What begins with a brace and then a quote, or one of `keys` and a colon, is meant as an object,
    and so is a list of such, or a JSON text with such inside. No more than that: "{red|blue} hair"
    and "[cat:dog:0.5]" are prompts. Raises InvalidRequest that names `field` and the position for
    a text that is meant as an object and is none, and one that names the key for a repeated key.
    """
    key = rf"""\\*["'\u2018\u201c]|({"|".join(keys)})\s*:"""
    meant = re.match(rf"""[\s\["]*{{\s*({key})""", text) is not None
    if not meant and not text.lstrip(" \t\r\n").startswith("{"):
        return None
    try:
        # NaN and the infinities pass here, for the error to name the field that has them.
        values = json.loads(text, object_pairs_hook=_Object, parse_int=_number, strict=False)
    except RecursionError:
        raise InvalidRequest(field, text, "a JSON object of plain values") from None
    except json.JSONDecodeError as error:
        if not meant:
            return None
        allowed = f"a prompt or a JSON object; at character {error.pos + 1}: {error.msg}"
        raise InvalidRequest(field, text, allowed) from None
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "a text with one inside"
        raise InvalidRequest(field, text, f"a prompt or one JSON object, not {kind}")
    inside: list[Any] = [values]
    while inside:
        one = inside.pop()
        for key in one.repeated if isinstance(one, _Object) else ():
            raise InvalidRequest(key, one[key], "each key once")
        inside += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return values


class _Object(dict):
    """A JSON object that knows its repeated keys."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__(members)
        self.repeated = [key for key, n in Counter(key for key, _ in members).items() if n > 1]


def _number(digits: str) -> int | float:
    """A JSON integer; a very long one, which Python reads slowly or not at all, as a float."""
    return int(digits) if len(digits) <= 40 else float(digits)
