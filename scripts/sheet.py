"""Small pictures in rows, for the docs."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

SIDE, GAP = 200, 8


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """The pictures, each made SIDE by SIDE, with GAP white pixels between them."""
    width, height = (count * (SIDE + GAP) - GAP for count in (len(rows[0]), len(rows)))
    made = Image.new("RGB", (width, height), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            made.paste(small, (x * (SIDE + GAP), y * (SIDE + GAP)))
    return made
