"""A request's pictures: out of base64, looked at before they are decoded, and decoded."""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import Any

from PIL import Image, ImageOps

from triptych.errors import InvalidRequest
from triptych.limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
_ORIENTATION = 0x0112  # the EXIF tag
_TURNED = (5, 6, 7, 8)
"""Orientations by which width and height change places."""


def file_of(field: str, value: Any, limits: Limits) -> bytes:
    """The file in `value`, base64 or a data: address with base64.

    Raises InvalidRequest, naming `field`, for anything else and for a file over the limits.
    """
    most = limits.max_picture_bytes
    allowed = f"base64 of a PNG, JPEG or WebP file of at most {most} bytes, or a data: address"
    if not isinstance(value, str):
        raise InvalidRequest(field, value, allowed)
    address = re.match(r"\s*data:[\w.+/;=-]*;base64,", value)
    text = value[address.end() :] if address else value
    if len(text) > 2 * most:
        raise InvalidRequest(field, value, allowed)
    try:
        file = base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest(field, value, allowed) from None
    if not 0 < len(file) <= most:
        raise InvalidRequest(field, value, allowed)
    return file


def size_of(field: str, file: bytes, limits: Limits) -> tuple[int, int]:
    """Height and width of a picture as it is meant to be seen, without decoding its pixels.

    Raises InvalidRequest, naming `field`, for a file that is none of FORMATS or is damaged, for an
    animated one, and for more bytes or pixels than the limits allow.
    """
    if len(file) > limits.max_picture_bytes:
        raise InvalidRequest(field, file, f"at most {limits.max_picture_bytes} bytes")
    try:
        with Image.open(io.BytesIO(file), formats=FORMATS) as picture:
            width, height = picture.size
            too_large = width * height > limits.max_picture_pixels
            # A JPEG of several pictures, as telephones write them, is its first picture.
            animated = picture.format != "MPO" and getattr(picture, "is_animated", False)
            # Pillow decodes a PNG to look for EXIF behind its pixels.
            may_turn = not too_large and (picture.format != "PNG" or b"eXIf" in file)
            turned = may_turn and picture.getexif().get(_ORIENTATION) in _TURNED
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InvalidRequest(field, file, "a PNG, JPEG or WebP file") from error
    if animated:
        raise InvalidRequest(field, file, "a picture that is not animated")
    if too_large:
        allowed = f"at most {limits.max_picture_pixels} pixels"
        raise InvalidRequest(field, f"{width}x{height}", allowed)
    return (width, height) if turned else (height, width)


def decode(field: str, file: bytes) -> Image.Image:
    """The picture in RGB, turned as its EXIF says: what diffusers' load_image gives.

    Alpha is dropped; palettes, gray, CMYK and 16 bits become RGB as Pillow converts them. Raises
    InvalidRequest, naming `field`, for a damaged file.
    """
    try:
        with Image.open(io.BytesIO(file), formats=FORMATS) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InvalidRequest(field, file, "a PNG, JPEG or WebP file that is whole") from error
