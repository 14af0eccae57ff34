"""The masked part of a picture alone, as diffusers' padding_mask_crop has it: cut out, put back."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from PIL import Image, ImageOps

from triptych.errors import InvalidRequest

Box = Tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""
MOST_SCALED = 2**24
"""Pixels that a picture may have before it is cut; more, of one much longer than wide, fill the
memory, and only what is seen is scaled, with edges that differ a little from diffusers'."""


def region(mask: Image.Image, size: tuple[int, int], padding: int) -> Box:
    """The part of the mask that is not black and `padding` pixels around it.

    It is widened along one side to the shape of `size`, width and height, as far as the mask goes.
    Raises InvalidRequest for a mask that is all black.
    """
    painted = np.asarray(mask.convert("L")) > 0
    rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
    if not len(rows):
        allowed = "one with something white, which padding_mask_crop looks for"
        raise InvalidRequest("mask_image", "one that is all black", allowed)
    left, right = max(int(columns[0]) - padding, 0), min(int(columns[-1]) + 1 + padding, mask.width)
    top, bottom = max(int(rows[0]) - padding, 0), min(int(rows[-1]) + 1 + padding, mask.height)
    wanted = size[0] / size[1]
    if (right - left) / (bottom - top) > wanted:
        top, bottom = _widened(top, bottom, (right - left) / wanted, mask.height)
    else:
        left, right = _widened(left, right, (bottom - top) * wanted, mask.width)
    return left, top, right, bottom


def _widened(low: int, high: int, length: float, end: int) -> tuple[int, int]:
    """`low` to `high` made `length` long on both sides, moved and at last cut to be in 0 to end."""
    more = int(length - (high - low))
    low -= more // 2
    high += more - more // 2
    if high >= end:
        low, high = low - (high - end), end
    if low < 0:
        low, high = 0, high - low
    return low, min(high, end)


def fill(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The whole picture within `size`, width and height; what is left of it repeats its edges."""
    width, height = size
    narrow = width / height < picture.width / picture.height
    inner = (
        width if narrow else max(1, picture.width * height // picture.height),
        max(1, picture.height * width // picture.width) if narrow else height,
    )
    scaled = picture.resize(inner, Image.LANCZOS)
    filled = Image.new("RGB", size)
    x, y = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
    filled.paste(scaled, (x, y))
    if narrow and y > 0:
        for box, at in (((0, 0, width, 0), 0), ((0, inner[1], width, inner[1]), y + inner[1])):
            filled.paste(scaled.resize((width, y), box=box), (0, at))
    elif not narrow and x > 0:
        for box, at in (((0, 0, 0, height), 0), ((inner[0], 0, inner[0], height), x + inner[0])):
            filled.paste(scaled.resize((x, height), box=box), (at, 0))
    return filled


def put_back(drawn: Image.Image, picture: Image.Image, mask: Image.Image, box: Box) -> Image.Image:
    """`picture` with what was drawn of its part `box`, where the mask is white.

    `mask`, of the picture's size, may be gray: the two are then mixed.
    """
    kept = Image.new("RGBa", picture.size)
    kept.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    base = Image.new("RGBA", picture.size)
    size = box[2] - box[0], box[3] - box[1]
    base.paste(cover(drawn, size), box[:2])
    whole = base.convert("RGB").convert("RGBA")
    whole.alpha_composite(kept.convert("RGBA"))
    return whole.convert("RGB")


def cover(
    picture: Image.Image, size: tuple[int, int], resample: int = Image.LANCZOS
) -> Image.Image:
    """The picture scaled to cover `size`, width and height, and cut to it at its middle."""
    width, height = size
    wide = width / height > picture.width / picture.height
    outer = (
        width if wide else picture.width * height // picture.height,
        picture.height * width // picture.width if wide else height,
    )
    left, top = outer[0] // 2 - width // 2, outer[1] // 2 - height // 2
    if outer[0] * outer[1] <= MOST_SCALED:
        cut = picture.resize(outer, resample).crop((left, top, left + width, top + height))
    else:
        across, down = picture.width / outer[0], picture.height / outer[1]
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        cut = picture.resize(size, resample, box=box)
    return cut.convert("RGB")
