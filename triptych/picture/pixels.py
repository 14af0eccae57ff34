"""Pixels of a picture out of what the VAE's decoder gives."""

from __future__ import annotations

import numpy as np

from triptych.errors import InvalidRequest, NotFinite
from triptych.picture.threads import pool


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
