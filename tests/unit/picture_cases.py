"""Small pictures and masks, as the tests of what is made of them compare it with diffusers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image


class Case(NamedTuple):
    """Sizes are width and height; `white` is the mask's white part: left, top, right, bottom."""

    picture: tuple
    white: tuple
    size: tuple = (32, 24)
    padding: int | None = None
    mask_blur: float = 0


CASES = (
    Case((32, 24), (3, 4, 20, 15)),
    Case((45, 30), (3, 4, 20, 15), mask_blur=2),
    Case((20, 50), (10, 20, 20, 50), (24, 32)),
    Case((64, 48), (20, 10, 30, 40), padding=0),
    Case((64, 48), (2, 3, 60, 9), padding=4, mask_blur=1.5),
    Case((90, 40), (80, 30, 90, 40), padding=3),
    Case((90, 40), (0, 0, 5, 40), padding=7),
    Case((30, 70), (5, 5, 25, 66), (32, 24), padding=2),
    Case((70, 30), (1, 10, 69, 20), (24, 40), padding=50),
    Case((33, 21), (0, 0, 33, 21), (40, 24), padding=1),
)


def pictures(case: Case) -> tuple:
    """The picture and the mask of a case, both in RGB."""
    engine = np.random.RandomState(case.picture[0])
    patches = engine.randint(0, 256, (4, 5, 3), np.uint8)
    mask = Image.new("RGB", case.picture)
    mask.paste((255, 255, 255), case.white)
    return Image.fromarray(patches).resize(case.picture, Image.BICUBIC), mask


DRAWN = Image.fromarray(np.random.RandomState(9).randint(0, 256, (5, 6, 3), np.uint8))
"""What the model is said to have drawn, to be scaled to the case's size."""
