"""Latents in another size, as torch interpolates them without aligned corners."""

from __future__ import annotations

import numpy as np

_CUBIC = -0.75
"""The parameter of torch's cubic kernel (Keys 1981, "Cubic convolution interpolation")."""


def covering(latents: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """`latents`, [channels, h, w], scaled to cover `size`, height and width, and cut at the middle.

    `interpolation` is one of `second_pass.INTERPOLATIONS`. Sides are rounded as the WebUI does it.
    """
    _, h, w = latents.shape
    height, width = size
    wide = width * h > height * w
    outer = (width * h // w, width) if wide else (height, height * w // h)
    rows, columns = (_matrix(old, new, interpolation) for old, new in zip((h, w), outer))
    top, left = (outer[0] - height) // 2, (outer[1] - width) // 2
    return rows[top : top + height] @ latents @ columns[left : left + width].T


def _matrix(old: int, new: int, interpolation: str) -> np.ndarray:
    """What makes `new` values of `old` ones, float32 [new, old]."""
    matrix = np.zeros((new, old), np.float32)
    at = np.arange(new)
    if interpolation.startswith("nearest"):
        middle = np.float32(0.5 if interpolation == "nearest-exact" else 0)
        scale = np.float32(old) / np.float32(new)  # as torch rounds it
        matrix[at, ((at.astype(np.float32) + middle) * scale).astype(int)] = 1
        return matrix
    place = (at + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int)
    for tap in range(-1, 3):
        weight = _KERNELS[interpolation](np.abs(place - (first + tap)))
        np.add.at(matrix, (at, np.clip(first + tap, 0, old - 1)), weight)
    return matrix


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - distance)


def _cubic(distance: np.ndarray) -> np.ndarray:
    x, a = distance, _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic}
