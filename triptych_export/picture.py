"""How much two pictures differ."""

from __future__ import annotations

import numpy as np


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in decibels; infinite if they are equal."""
    error = np.mean((picture.astype(np.float64) - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
