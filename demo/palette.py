"""The colours that captions name, and the nearest of them to a colour."""

from __future__ import annotations

import numpy as np

PALETTE = {
    "red": (216, 40, 44),
    "orange": (246, 140, 30),
    "yellow": (250, 216, 52),
    "green": (46, 158, 70),
    "cyan": (64, 204, 216),
    "blue": (38, 84, 208),
    "purple": (128, 58, 172),
    "pink": (248, 150, 190),
    "brown": (122, 74, 38),
    "black": (24, 24, 28),
    "white": (248, 248, 246),
    "gray": (140, 143, 148),
}
NAMES = tuple(PALETTE)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB [..., 3] in 0..255 to CIE L*a*b* (D65), as CIE 15 and IEC 61966-2-1 define them."""
    linear = np.asarray(rgb, np.float32) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
    )
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089], np.float32)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_LAB = to_lab(np.array(list(PALETTE.values())))


def nearest(rgb: np.ndarray) -> np.ndarray:
    """Index into NAMES of the palette colour nearest to each colour of rgb [..., 3], in L*a*b*."""
    lab = to_lab(rgb)
    return np.argmin(((lab[..., None, :] - _LAB) ** 2).sum(-1), axis=-1)
