"""What a picture of shapes shows, by classical vision: palette distance and template match.

Knows nothing of any network. Each pixel takes the nearest palette colour; the border's majority is
the background; connected regions of anything else are shapes, matched to drawn ones by overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from demo.palette import NAMES as COLOURS
from demo.palette import nearest
from demo.scenes import SHAPES
from demo.shapes import SHAPES as DISTANCES

SMALLEST = 0.004
TEMPLATE = 64


@dataclass(frozen=True)
class Seen:
    """A shape found; its bounding box's centre and its area as fractions of the picture."""

    shape: str
    colour: str
    x: float
    y: float
    area: float
    overlap: float


def look(image: np.ndarray, outlines: bool = False) -> tuple[str, list[Seen]]:
    """Background colour and the shapes, largest first, of uint8 [H, W, 3].

    With `outlines` a shape is what a closed line surrounds; a ring is then seen as a circle.
    """
    labels, background, painted = _separated(image)
    height, width = labels.shape
    regions, count = ndimage.label(painted)
    seen = []
    for i in range(1, count + 1):
        mask = regions == i
        area = mask.mean()
        if area < SMALLEST:
            continue
        inner = ndimage.binary_erosion(mask, iterations=2)
        colour = np.bincount(labels[inner if inner.any() else mask]).argmax()
        whole = ndimage.binary_dilation(mask, iterations=1) & (labels != background)
        shape, overlap = _best_template(ndimage.binary_fill_holes(whole) if outlines else whole)
        rows, columns = np.nonzero(mask)
        x, y = (columns.min() + columns.max()) / 2 / width, (rows.min() + rows.max()) / 2 / height
        seen.append(Seen(shape, COLOURS[colour], x, y, float(area), overlap))
    return COLOURS[background], sorted(seen, key=lambda s: -s.area)


def hollowness(image: np.ndarray) -> float:
    """Which part of what the shapes of uint8 [H, W, 3] surround has the background's colour.

    0 for solid shapes other than rings, and where nothing is seen.
    """
    _, _, painted = _separated(image)
    surrounded = ndimage.binary_fill_holes(painted).sum()
    return float(1 - painted.sum() / surrounded) if surrounded else 0.0


def _separated(image: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Each pixel's palette colour, the background's, and where shapes are painted."""
    labels = nearest(image)
    border = np.concatenate(
        [labels[:4].ravel(), labels[-4:].ravel(), labels[:, :4].ravel(), labels[:, -4:].ravel()]
    )
    background = int(np.bincount(border).argmax())
    return labels, background, ndimage.binary_opening(labels != background, iterations=2)


def relation(first: Seen, second: Seen) -> str:
    """Where the first stands: 'left of', 'right of', 'above' or 'below' the second."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _framed(mask: np.ndarray) -> np.ndarray:
    """The mask's bounding box, its longer side scaled to TEMPLATE, centred in a square, as 0..1."""
    rows, columns = np.nonzero(mask)
    box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = TEMPLATE / max(box.shape)
    size = [max(1, round(side * scale)) for side in box.shape]
    small = Image.fromarray(box.astype(np.uint8) * 255).resize(size[::-1], Image.BILINEAR)
    frame = np.zeros((TEMPLATE, TEMPLATE), np.float32)
    top, left = (TEMPLATE - size[0]) // 2, (TEMPLATE - size[1]) // 2
    frame[top : top + size[0], left : left + size[1]] = np.asarray(small, np.float32) / 255
    return frame


def _templates():
    along = (np.arange(256) + 0.5) / 128 - 1
    x, y = np.meshgrid(along * 1.1, along * 1.1)
    return np.stack([_framed(DISTANCES[name](np, x, y) < 0) for name in SHAPES])


_TEMPLATES = _templates()


def _best_template(mask: np.ndarray) -> tuple[str, float]:
    """The shape of largest overlap (intersection over union) with the mask, and that overlap."""
    framed = _framed(mask)
    overlap = np.minimum(_TEMPLATES, framed).sum((1, 2)) / np.maximum(_TEMPLATES, framed).sum(
        (1, 2)
    )
    best = int(overlap.argmax())
    return SHAPES[best], float(overlap[best])
