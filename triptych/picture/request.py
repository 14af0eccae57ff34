"""INPUT_0 with its pictures: the settings, and beside them the files of image and mask_image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from triptych.errors import InvalidRequest
from triptych.limits import Limits
from triptych.picture.reading import file_of, size_of
from triptych.settings import PICTURES, Defaults, Settings, asked, settled

STRENGTH, MASKED_STRENGTH = 0.8, 1.0
"""Defaults of diffusers' pipelines for image to image and for inpainting."""
_LONGEST = {"webp": 16383, "jpeg": 65535}
"""The longest side, in pixels, of a file of that format."""
_NEEDED = {
    "strength": "image",
    "mask_image": "image",
    "mask_blur": "mask_image",
    "padding_mask_crop": "mask_image",
}


class Request(NamedTuple):
    """What a request asks for. `image` and `mask_image` are files, empty where there is none."""

    settings: Settings
    image: bytes = b""
    mask_image: bytes = b""


def read_request(
    raw: bytes,
    defaults: Defaults,
    limits: Limits,
    parameters: Mapping[str, Any] | None = None,
    takes_pictures: bool = True,
) -> Request:
    """The request in `raw`, as `settings.parse` reads it, with `image` and `mask_image`.

    takes_pictures: whether the served model has a vae_encoder. Without `height` or `width` the
    picture's own is taken, down to the multiple that the model needs. Files are looked at but not
    decoded. Raises InvalidRequest for what cannot be served.
    """
    values = asked(raw, limits, parameters)
    if "image" in values and not takes_pictures:
        allowed = "none: this model has no vae_encoder, which reads pictures"
        raise InvalidRequest("image", values["image"], allowed)
    for name, needed in _NEEDED.items():
        if name in values and needed not in values:
            raise InvalidRequest(name, values[name], f"none without {needed}")
    image, mask = (
        file_of(name, values.pop(name), limits) if name in values else b"" for name in PICTURES
    )
    if not image:
        return Request(settled(values, defaults, limits))
    if mask:
        size_of("mask_image", mask, limits)
    size = size_of("image", image, limits)
    values.setdefault("strength", MASKED_STRENGTH if mask else STRENGTH)
    own = {}
    for name, side in zip(("height", "width"), size):
        if name not in values:
            own[name] = values[name] = side - side % defaults.size_multiple
    try:
        settings = settled(values, defaults, limits)
    except InvalidRequest as error:
        if error.field not in own:
            raise
        value = f"{size[1]}x{size[0]}"
        allowed = f"with no {error.field} in the request, a picture whose own is {error.allowed}"
        raise InvalidRequest("image", value, allowed) from None
    longest = _LONGEST.get(settings.output_format, math.inf)
    if settings.padding_mask_crop is not None and max(size) > longest:
        allowed = f"png, where the whole picture is {size[1]}x{size[0]}"
        raise InvalidRequest("output_format", settings.output_format, allowed)
    return Request(settings, image, mask)
