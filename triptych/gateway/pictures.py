"""Pictures that a request brings, changed before they go to the server; all of it is slow."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageOps

from triptych.errors import InvalidRequest
from triptych.gateway.errors import Problem
from triptych.limits import Limits
from triptych.picture.reading import FORMATS, size_of

LIMITS = Limits()
HALF = 128
"""Where a mask begins to be white, as the server has it."""

_THREADS = ThreadPoolExecutor(4)  # not asyncio's own, which wait for the names of webhooks' hosts

_P = ParamSpec("_P")
_R = TypeVar("_R")


async def in_thread(work: Callable[_P, _R], *arguments: _P.args, **named: _P.kwargs) -> _R:
    """The result of `work`, done in a thread; Problem 400 for its InvalidRequest."""
    try:
        return await asyncio.get_running_loop().run_in_executor(
            _THREADS, partial(work, *arguments, **named)
        )
    except InvalidRequest as error:
        raise Problem(400, str(error), error.field) from error


def opened(field: str, file: bytes) -> Image.Image:
    """The picture, with the alpha that it has, turned as its EXIF says.

    Raises InvalidRequest, naming `field`, for a damaged file and for more pixels than a server
    takes, before they are decoded.
    """
    size_of(field, file, LIMITS)
    try:
        with Image.open(io.BytesIO(file), formats=FORMATS) as picture:
            turned = ImageOps.exif_transpose(picture)
            return turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InvalidRequest(field, file, "a PNG, JPEG or WebP file that is whole") from error


def png(picture: Image.Image) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def transparent_part(field: str, file: bytes) -> bytes | None:
    """A mask, a PNG, that is white where the picture is transparent; None if that is nowhere."""
    picture = opened(field, file)
    if picture.mode != "RGBA":
        return None
    alpha = picture.getchannel("A")
    return png(ImageChops.invert(alpha)) if alpha.getextrema()[0] < HALF else None


def fitting(picture: Image.Image) -> bytes:
    """The file of a picture that a server takes: a PNG, a JPEG where that would be too large."""
    file = png(picture)
    if len(file) <= LIMITS.max_picture_bytes:
        return file
    smaller = io.BytesIO()
    picture.save(smaller, "JPEG", quality=95, subsampling=0)
    return smaller.getvalue()


def filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture, RGB, with the colours around it where the mask, of its size, is white.

    The nearer the finer: each part takes the mean of the smallest square around it, of 2 by 2
    pixels, 4 by 4 and so on, that has anything left of the picture.
    """
    keep = np.asarray(mask.convert("L")) < HALF
    return _filled(np.asarray(picture), keep)


def _filled(pixels: np.ndarray, keep: np.ndarray) -> Image.Image:
    height, width = keep.shape
    if keep.all() or keep.size == 1:
        return Image.fromarray(pixels)
    even = ((0, height % 2), (0, width % 2))
    known = np.pad(pixels * keep[..., None], (*even, (0, 0)))
    counts = _of_squares(np.pad(keep, even))[..., None]
    means = (_of_squares(known) // np.maximum(counts, 1)).astype(np.uint8)
    coarse = _filled(means, counts[..., 0] > 0)
    size = 2 * coarse.width, 2 * coarse.height
    around = np.asarray(coarse.resize(size, Image.BILINEAR))[:height, :width]
    return Image.fromarray(np.where(keep[..., None], pixels, around))


def _of_squares(values: np.ndarray) -> np.ndarray:
    """The sums over squares of 2 by 2."""
    pairs = values[::2].astype(np.uint16) + values[1::2]
    return pairs[:, ::2] + pairs[:, 1::2]


ANY_PICTURE = png(Image.new("RGB", (8, 8)))
"""Stands for a picture where a server is asked whether it would take one."""
