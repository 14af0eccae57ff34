"""Pictures of scenes, a batch at a time, with any array library (NumPy, or PyTorch on a GPU).

Colours are floats in 0..1; coordinates run from 0 to 1 from the top left corner. Edges are
antialiased by the distance to them in pixels.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

from demo.palette import PALETTE
from demo.scenes import SHAPES, Landscape, ShapesPicture
from demo.shapes import SHAPES as DISTANCES

# Top of the sky, its horizon, and the tint and strength of the light on the ground.
SKIES = {
    "sunrise": ((112, 150, 214), (255, 206, 168), (255, 214, 190), 0.92),
    "noon": ((56, 128, 226), (186, 224, 250), (255, 255, 250), 1.0),
    "sunset": ((66, 44, 112), (250, 124, 62), (255, 170, 120), 0.74),
    "night": ((8, 12, 36), (40, 50, 98), (120, 140, 210), 0.42),
}
SUN_COLOURS = {
    "yellow": (255, 226, 84),
    "orange": (255, 150, 40),
    "red": (228, 56, 44),
    "white": (255, 252, 244),
}
MOON_COLOURS = {
    "yellow": (250, 228, 140),
    "orange": (240, 168, 90),
    "gray": (176, 180, 188),
    "white": (244, 246, 250),
}
HILL_COLOURS = {
    "green": (74, 160, 72),
    "brown": (142, 96, 58),
    "purple": (126, 84, 168),
    "orange": (224, 136, 56),
    "gray": (130, 136, 144),
}
SEA_COLOURS = {"blue": (34, 92, 190), "cyan": (56, 178, 198), "purple": (104, 72, 166)}
STARS = 16
LINE = 0.03
"""The width of an outline drawing's lines, as a fraction of the picture's side."""


def draw(pictures: Sequence, size: int = 256, xp=np, line: float | None = None, **placement):
    """Draw pictures, all ShapesPicture or all Landscape: [N, 3, size, size] float32 in 0..1.

    With `line`, a width as a fraction of the picture's side, only the outlines are painted, of
    shapes, hills, sea, sun and moon alike. `placement` goes to xp.asarray (for PyTorch:
    device="cuda").
    """
    painter = _landscapes if isinstance(pictures[0], Landscape) else _shapes
    return xp.clip(painter(pictures, _Canvas(len(pictures), size, xp, line, placement)), 0, 1)


class _Canvas:
    """Coordinates and conversions for a batch of pictures."""

    def __init__(self, count: int, size: int, xp, line: float | None, placement):
        self.xp, self.placement, self.size, self.line = xp, placement, size, line
        along = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x = self.array(np.broadcast_to(along[None, None, :], (count, size, size)).copy())
        self.y = self.array(np.broadcast_to(along[None, :, None], (count, size, size)).copy())

    def array(self, values):
        return self.xp.asarray(np.asarray(values, np.float32), **self.placement)

    def scalars(self, values):
        """One number a picture, [N, 1, 1]."""
        return self.array(values).reshape(-1, 1, 1)

    def colours(self, values):
        """One colour a picture, given in 0..255: [N, 3, 1, 1]."""
        return self.array(values).reshape(-1, 3, 1, 1) / 255

    def places(self, shapes: Sequence):
        """x, y and radius of one shape a picture (anything for None), [N, 1, 1] each."""
        there = [(s.x, s.y, s.radius) if s else (1.0, 1.0, 1.0) for s in shapes]
        return (self.scalars(values) for values in zip(*there))

    def painted(self, distance):
        """The distance to what is painted: all that lies inside, or a line along its edge."""
        return distance if self.line is None else self.xp.maximum(distance, -distance - self.line)

    def coverage(self, distance):
        """How much of each pixel is painted, [N, 1, H, W], from the distance in picture widths."""
        return self.xp.clip(0.5 - self.painted(distance) * self.size, 0, 1)[:, None]


def _over(below, colour, alpha):
    return below + (colour - below) * alpha


def _smooth(xp, value):
    value = xp.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _shapes(pictures: Sequence[ShapesPicture], canvas: _Canvas):
    xp = canvas.xp
    image = canvas.colours([PALETTE[p.background_colour] for p in pictures])
    image = image * (1.03 - 0.07 * canvas.y[:, None])
    for slot in range(max(len(p.shapes) for p in pictures)):
        shapes = [p.shapes[slot] if slot < len(p.shapes) else None for p in pictures]
        present = canvas.scalars([shape is not None for shape in shapes])[:, None]
        colour = canvas.colours([PALETTE[shape.colour] if shape else (0, 0, 0) for shape in shapes])
        across, down, radius = canvas.places(shapes)
        blurred = 0.5 - canvas.painted(_distance(shapes, canvas, 0.008, 0.016)) / 0.045
        image = image * (1 - 0.13 * _smooth(xp, blurred)[:, None] * present)
        slope = ((canvas.x - across) * 0.5 + canvas.y - down) / radius
        light = 1.0 - 0.10 * slope[:, None]
        image = _over(image, colour * light, canvas.coverage(_distance(shapes, canvas)) * present)
    return image


def _distance(shapes: Sequence, canvas: _Canvas, right: float = 0.0, down: float = 0.0):
    """Distances [N, H, W] to one shape a picture (None for no shape), moved by right and down."""
    x, y, radius = canvas.places(shapes)
    u, v = (canvas.x - x - right) / radius, (canvas.y - y - down) / radius
    distance = u * 0
    for name in SHAPES:
        chosen = [i for i, shape in enumerate(shapes) if shape and shape.shape == name]
        if chosen:
            distance[chosen] = DISTANCES[name](canvas.xp, u[chosen], v[chosen])
    return distance * radius


def _landscapes(pictures: Sequence[Landscape], canvas: _Canvas):
    xp, x, y = canvas.xp, canvas.x, canvas.y
    draws = np.stack([np.random.RandomState(p.seed).rand(12 + 3 * STARS) for p in pictures])
    skies = [SKIES[p.time] for p in pictures]
    horizon = canvas.scalars(
        [0.68 if p.sea and not p.hills else 0.74 if p.hills and p.sea else 0.70 for p in pictures]
    )
    top, low = canvas.colours([s[0] for s in skies]), canvas.colours([s[1] for s in skies])
    image = _over(top, low, _smooth(xp, y / horizon)[:, None])

    night = canvas.scalars([p.time == "night" for p in pictures])[:, None]
    for i in range(STARS):
        sx, sy, glow = (canvas.scalars(draws[:, 12 + 3 * i + j]) for j in range(3))
        spot = xp.exp(-((x - sx) ** 2 + (y - sy * 0.6) ** 2) / (0.0022 + 0.0025 * glow) ** 2)[
            :, None
        ]
        image = _over(image, 1.0, spot * night * (0.5 + 0.5 * glow[:, None]))

    lights = [(SUN_COLOURS if p.light == "sun" else MOON_COLOURS)[p.light_colour] for p in pictures]
    colour = canvas.colours(lights)
    high = canvas.scalars([{"noon": 0.0, "night": 0.02}.get(p.time, 0.14) for p in pictures])
    cx, cy = (
        canvas.scalars(0.25 + 0.5 * draws[:, 0]),
        0.20 + 0.12 * canvas.scalars(draws[:, 1]) + high,
    )
    radius = 0.085 + 0.03 * canvas.scalars(draws[:, 2])
    away = xp.sqrt((x - cx) ** 2 + (y - cy) ** 2)
    halo = canvas.scalars([0.5 if p.light == "sun" else 0.25 for p in pictures])
    image = _over(image, colour, (halo * xp.exp(-xp.clip(away - radius, 0, 2) / 0.08))[:, None])
    image = _over(image, colour, canvas.coverage(away - radius))

    tint = canvas.colours([s[2] for s in skies]) * canvas.scalars([s[3] for s in skies])[:, None]
    hills = canvas.colours([HILL_COLOURS.get(p.hills, (0, 0, 0)) for p in pictures])
    has_hills = canvas.scalars([bool(p.hills) for p in pictures])[:, None]
    for layer in range(3):
        depth = (2 - layer) / 2
        phase, swell = canvas.scalars(draws[:, 3 + layer]), canvas.scalars(draws[:, 6 + layer])
        wave = xp.sin(2 * math.pi * (x * (1.0 + 0.5 * swell + 0.2 * layer) + phase))
        wave = wave + 0.4 * xp.sin(2 * math.pi * (x * 2.3 + 3 * phase + swell))
        ridge = horizon - 0.08 + 0.085 * layer - 0.038 * wave
        ground = hills * tint * (1.06 - 0.16 * layer)
        ground = _over(ground, low, 0.34 * depth)
        ground = ground * (1 - 0.35 * xp.clip(y - ridge, 0, 1))[:, None]
        image = _over(image, ground, canvas.coverage(ridge - y) * has_hills)

    sea = canvas.colours([SEA_COLOURS.get(p.sea, (0, 0, 0)) for p in pictures])
    has_sea = canvas.scalars([bool(p.sea) for p in pictures])[:, None]
    shore = canvas.scalars([0.80 if p.hills else 0.68 for p in pictures])
    below = xp.clip((y - shore) / (1 - shore), 0, 1)
    water = _over(sea * tint, low, (0.30 * (1 - below) ** 2)[:, None])
    ripples = 0.5 + 0.5 * xp.sin(
        70 * xp.sqrt(below + 0.02) * (1 + 0 * x) + 9 * xp.sin(7 * x + 30 * y)
    )
    trail = xp.exp(-(((x - cx) / (0.035 + 0.09 * below)) ** 2)) * (0.25 + 0.5 * ripples)
    water = _over(water, colour, (0.7 * trail)[:, None])
    return _over(image, water, canvas.coverage(shore - y) * has_sea)
