"""Pictures that a request brings, changed before they go to the server; all of it is slow."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from PIL import Image, ImageChops, ImageOps

from triptych.errors import InvalidRequest
from triptych.gateway.errors import Problem
from triptych.limits import Limits
from triptych.picture.reading import FORMATS, size_of

LIMITS = Limits()
HALF = 128
"""Where a mask begins to be white, as the server has it."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


async def in_thread(work: Callable[_P, _R], *arguments: _P.args, **named: _P.kwargs) -> _R:
    """The result of `work`, done in a thread; Problem 400 for its InvalidRequest."""
    try:
        return await asyncio.to_thread(work, *arguments, **named)
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
