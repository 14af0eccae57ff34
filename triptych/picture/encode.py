"""The picture as a file that carries the settings it was made with."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from triptych.picture import metadata, png
from triptych.picture.pixels import to_pixels
from triptych.picture.prepare import put_back
from triptych.settings import Settings

SAVED = {"jpeg": {"quality": 95, "subsampling": 0}, "webp": {"quality": 90, "method": 2}}
"""How Pillow writes the formats that it is asked for."""


def encode(
    sample: np.ndarray, settings: Settings, image: bytes = b"", mask_image: bytes = b""
) -> bytes:
    """The image file, in the settings' output_format, of what the VAE's decoder gave.

    `sample` is float32 [3, height, width], -1 to 1; the settings go with it, for
    `metadata.read_settings`. `image` and `mask_image` are the files that the request brought: with
    padding_mask_crop the sample is a part of that picture, and the file all of it. Raises NotFinite
    for NaN or infinity in the sample, InvalidRequest for another shape.
    """
    pixels = to_pixels(sample)
    if mask_image and settings.padding_mask_crop is not None:
        pixels = put_back(pixels, settings, image, mask_image)
    if settings.output_format == "png":
        return png.write(pixels, metadata.text_chunks(settings))
    options = SAVED[settings.output_format]
    exif = metadata.exif(settings)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, settings.output_format.upper(), exif=exif, **options)
    return file.getvalue()


def encode_base64(
    sample: np.ndarray, settings: Settings, image: bytes = b"", mask_image: bytes = b""
) -> bytes:
    """OUTPUT_0: the base64 of `encode`."""
    return base64.b64encode(encode(sample, settings, image, mask_image))
