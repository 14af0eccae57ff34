"""The LoRAs that a request asks for."""

from __future__ import annotations

from typing import Any, NamedTuple

from triptych import checks
from triptych.errors import InvalidRequest

MOST = 8
"""LoRAs of one image."""
MOST_SCALE = 4.0
"""A scale is from this, below zero, to this."""
LONGEST_NAME = 200


class Lora(NamedTuple):
    """A file's name, without its ending, and what its change of the weights is multiplied by."""

    name: str
    scale: float


def read(value: Any) -> tuple[Lora, ...]:
    """The LoRAs in a list of objects with `name` and `scale`, which is 1 where it is not said.

    Raises InvalidRequest for anything else, and where one name comes twice.
    """
    if not isinstance(value, (list, tuple)):
        raise InvalidRequest("loras", value, 'a list as [{"name": "ink", "scale": 0.8}]')
    return checked(_read(one) for one in value)


def checked(loras) -> tuple[Lora, ...]:
    """`loras`; InvalidRequest for too many, and where one name comes twice."""
    loras = tuple(loras)
    if len(loras) > MOST:
        raise InvalidRequest("loras", len(loras), f"at most {MOST} LoRAs")
    names = [lora.name for lora in loras]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest("loras", name, "each name once")
    return loras


def _read(value: Any) -> Lora:
    if isinstance(value, Lora):
        return value
    if not isinstance(value, dict) or not set(value) <= {"name", "scale"}:
        raise InvalidRequest("loras", value, "objects with name and scale alone")
    return one(value.get("name"), value.get("scale", 1.0))


def is_name(name: Any) -> bool:
    """Whether a request may ask for the file of that name."""
    encoded = checks.utf8(name)
    if encoded is None or not 0 < len(encoded) <= LONGEST_NAME or name.startswith("."):
        return False
    return not any(sign in name for sign in "/\\\0")


def one(name: Any, scale: Any) -> Lora:
    """A LoRA of a name that a file can have, and of a scale within the bounds."""
    if not is_name(name):
        allowed = f"the name of a file in the folder of LoRAs, at most {LONGEST_NAME} bytes"
        raise InvalidRequest("loras", name, allowed)
    if not checks.is_number(scale) or not abs(scale) <= MOST_SCALE:
        raise InvalidRequest("loras", scale, f"scales from -{MOST_SCALE:g} to {MOST_SCALE:g}")
    return Lora(name, float(scale))
