"""A second pass: the image drawn once more, at a larger size, from its own latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from triptych import checks, schedulers
from triptych.errors import InvalidRequest
from triptych.limits import Limits

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "nearest-exact")
STRENGTH = 0.8
"""The default of diffusers' image to image, which a second pass is."""


class SecondPass(NamedTuple):
    """What is other in the second pass than in the first.

    `height` and `width` are the picture's at last, in pixels; `interpolation` is how the latents
    come to that size, by torch's names.
    """

    height: int
    width: int
    strength: float
    num_inference_steps: int
    interpolation: str


def read(values: Mapping[str, Any], limits: Limits, size_multiple: int) -> SecondPass | None:
    """The second pass that `values`, a request's, ask for; None without one.

    Raises InvalidRequest, naming `second_pass` or a key of it.
    """
    asked = values.get("second_pass")
    if "second_pass" not in values or isinstance(asked, SecondPass):
        return asked
    keys = SecondPass._fields
    if not isinstance(asked, dict) or not {"height", "width"} <= set(asked) <= set(keys):
        allowed = f"an object with height and width, and no keys but {', '.join(keys)}"
        raise InvalidRequest("second_pass", asked, allowed)
    if "strength" in values:
        raise InvalidRequest("second_pass", asked, "none with image or strength")
    try:
        return _checked(asked, values["num_inference_steps"], limits, size_multiple)
    except InvalidRequest as error:
        field = f"second_pass.{error.field}"
        raise InvalidRequest(field, error.value, error.allowed) from None


def _checked(
    asked: Mapping[str, Any], usual_steps: int, limits: Limits, size_multiple: int
) -> SecondPass:
    height, width = checks.size(asked, limits, size_multiple)
    steps = checks.integer(
        "num_inference_steps",
        asked.get("num_inference_steps", usual_steps),
        limits.max_num_inference_steps,
    )
    strength = checks.real("strength", asked.get("strength", STRENGTH), 1)
    schedulers.steps_made(steps, strength)
    return SecondPass(
        height,
        width,
        strength,
        steps,
        checks.one_of("interpolation", asked.get("interpolation", "bilinear"), INTERPOLATIONS),
    )
