"""DeepCache between the stages: how a call of `unet` says which images' deep part runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from triptych.denoise.deep_cache import Deep, DeepCache
from triptych.errors import InvalidRequest

PARAMETER = "deep_cache"
"""Of a call of `unet`."""
LONGEST_NAME = 64
NOWHERE = "1: unet is run by a backend that keeps no features, or this Triton hands on no names"


def parameters(cache: DeepCache | None) -> dict[str, str]:
    """The parameters of a call of these images."""
    return {} if cache is None else {PARAMETER: json.dumps(cache)}


def asked(given: Mapping[str, Any]) -> DeepCache | None:
    """The images in a call's parameters; InvalidRequest if they are not `parameters`' own."""
    if PARAMETER not in given:
        return None
    try:
        images, gone = json.loads(given[PARAMETER])
        found = DeepCache(tuple(Deep(*image) for image in images), tuple(gone))
        if all(map(_is_part, found.images)) and all(map(_is_name, gone)):
            return found
    except (TypeError, ValueError, RecursionError):
        pass
    allowed = "[[[name, rows, since, due], ...], [name, ...]] in JSON, as unet_loop gives it"
    raise InvalidRequest(PARAMETER, given[PARAMETER], allowed)


def _is_part(image: Deep) -> bool:
    numbers = type(image.rows) is type(image.since) is int and type(image.due) is bool
    return numbers and _is_name(image.name) and image.rows > 0


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME
