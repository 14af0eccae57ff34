"""The picture as a file that carries the settings it was made with."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from triptych import png
from triptych.errors import InvalidRequest, NotFinite
from triptych.settings import PICTURE_KEYS, Settings
from triptych.threads import pool

_JPEG = {"quality": 95, "subsampling": 0}
_WEBP = {"quality": 90, "method": 2}

_IMAGE_DESCRIPTION = 0x010E  # the EXIF tag
_EXIF_BYTES = 60_000  # JPEG has room for 65,533, all tags together
_TEXT_CHUNKS = (*PICTURE_KEYS, "warnings")
_MAX_FILE_BYTES = 64 * 1024 * 1024


def encode(sample: np.ndarray, settings: Settings) -> bytes:
    """The image file, in the settings' output_format, of what the VAE's decoder gave.

    `sample` is [3, height, width], -1 to 1; the settings go with it, for `read_settings`.
    Raises NotFinite for NaN or infinity in it, InvalidRequest for another shape.
    """
    pixels = to_pixels(sample)
    if settings.output_format == "png":
        return png.write(pixels, _text_chunks(settings))
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = _description(settings)
    options = _JPEG if settings.output_format == "jpeg" else _WEBP
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, settings.output_format.upper(), exif=exif, **options)
    return file.getvalue()


def encode_base64(sample: np.ndarray, settings: Settings) -> bytes:
    """OUTPUT_0: the base64 of `encode`."""
    return base64.b64encode(encode(sample, settings))


def to_pixels(sample: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3] for [3, height, width] of -1 to 1, rounded as diffusers rounds."""
    if sample.ndim != 3 or sample.shape[0] != 3 or 0 in sample.shape:
        raise InvalidRequest("sample", sample.shape, "[3, height, width]")
    pixels = np.empty((*sample.shape[1:], 3), np.uint8)
    if not all(pool.map(_convert, sample, np.moveaxis(pixels, 2, 0))):
        raise NotFinite("the decoded picture is not finite: the VAE or its precision overflowed")
    return pixels


def _convert(plane: np.ndarray, pixels: np.ndarray) -> bool:
    """Fill one channel's `pixels`; whether all of its numbers are finite."""
    if not np.isfinite(plane).all():
        return False
    plane = plane * np.float32(0.5)
    plane += np.float32(0.5)
    np.clip(plane, 0, 1, out=plane)
    plane *= np.float32(255)
    pixels[...] = np.rint(plane, out=plane)
    return True


def read_settings(file: bytes) -> Settings:
    """The settings that a picture was made with, out of the picture's file.

    Reads no pixels, and no more than Pillow's bounds allow of compressed text. Raises
    InvalidRequest if `file` is no picture, is none of Triptych's, or has been changed.
    """
    allowed = f"a picture by Triptych of at most {_MAX_FILE_BYTES} bytes"
    if len(file) > _MAX_FILE_BYTES:
        raise InvalidRequest("image", file, allowed)
    try:
        with Image.open(io.BytesIO(file), formats=("PNG", "JPEG", "WEBP")) as picture:
            text = _settings_json(picture)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InvalidRequest("image", file, allowed) from error
    return Settings.from_json(text)


def _settings_json(picture: Image.Image) -> str:
    if picture.format != "PNG":
        return picture.getexif()[_IMAGE_DESCRIPTION]
    return json.dumps({name: _from_text(name, picture.info[name]) for name in _TEXT_CHUNKS})


def _text_chunks(settings: Settings) -> PngInfo:
    """One text chunk a setting, under its name; iTXt where Latin-1 does not do."""
    chunks = PngInfo()
    for name in _TEXT_CHUNKS:
        value = getattr(settings, name)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            chunks.add_itxt(name, text)
        else:
            chunks.add_text(name, text)
    return chunks


def _from_text(name: str, text: str) -> Any:
    """The value of a text chunk: those of text settings stand as they are."""
    is_text = name in ("prompt", "negative_prompt", "scheduler", "output_format")
    return text if is_text else json.loads(text)


def _description(settings: Settings) -> str:
    """The settings as JSON in ASCII; where EXIF has no room for the prompts, with those cut."""
    settings = dataclasses.replace(settings, deadline=None)
    text = settings.to_json()
    if len(text) <= _EXIF_BYTES:
        return text
    most = 2000  # 12 bytes each at the most
    warning = (
        f"the prompts are longer than this file can carry, and stand here cut to {most} letters"
    )
    return dataclasses.replace(
        settings,
        prompt=settings.prompt[:most],
        negative_prompt=settings.negative_prompt[:most],
        warnings=(*settings.warnings, warning),
    ).to_json()
