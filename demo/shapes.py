"""Ten shapes as signed distances, for any array library (NumPy, PyTorch).

Each function takes the array module and coordinates (x to the right, y down, the shape inside the
unit circle) and returns the distance to its outline in the same units, negative inside. Distances
are exact near straight and round edges, which is all that antialiasing asks for.
"""

from __future__ import annotations

import math


def circle(xp, x, y):
    return xp.sqrt(x * x + y * y) - 0.9


def square(xp, x, y):
    return xp.maximum(abs(x), abs(y)) - 0.78


def triangle(xp, x, y):
    return _regular_polygon(xp, x, y + -0.2, 3, 0.56)


def hexagon(xp, x, y):
    return _regular_polygon(xp, y, x, 6, 0.82)


def diamond(xp, x, y):
    return (abs(x) / 0.66 + abs(y) - 1.0) * 0.55


def star(xp, x, y):
    return _star(xp, x, y, points=5, outer=1.0, inner=0.42)


def heart(xp, x, y):
    side = 0.86
    y = y - 0.12
    u, v = (x + y) * math.sqrt(0.5), (y - x) * math.sqrt(0.5)
    body = xp.maximum(abs(u), abs(v)) - side / 2
    left = xp.sqrt(u * u + (v - -side / 2) ** 2) - side / 2
    right = xp.sqrt((u - -side / 2) ** 2 + v * v) - side / 2
    return xp.minimum(body, xp.minimum(left, right))


def ring(xp, x, y):
    return abs(xp.sqrt(x * x + y * y) - 0.7) - 0.2


def cross(xp, x, y):
    upright = xp.maximum(abs(x) - 0.28, abs(y) - 0.88)
    lying = xp.maximum(abs(x) - 0.88, abs(y) - 0.28)
    return xp.minimum(upright, lying)


def crescent(xp, x, y):
    x = x - 0.14
    full = xp.sqrt(x * x + y * y) - 0.88
    bite = xp.sqrt((x - 0.42) ** 2 + (y + 0.12) ** 2) - 0.72
    return xp.maximum(full, -bite)


def _regular_polygon(xp, x, y, sides, apothem):
    """The largest of its edges' distances; one edge faces down."""
    distance = y - apothem
    for i in range(1, sides):
        angle = math.pi / 2 + 2 * math.pi * i / sides
        distance = xp.maximum(distance, x * math.cos(angle) + y * math.sin(angle) - apothem)
    return distance


def _star(xp, x, y, points, outer, inner):
    """A star, one point up, folded into half a point: there its outline is one line."""
    sector = 2 * math.pi / points
    angle = xp.arctan2(x, -y)
    angle = abs(angle - sector * xp.round(angle / sector))
    radius = xp.sqrt(x * x + y * y)
    px, py = radius * xp.sin(angle), radius * xp.cos(angle)
    tip_x, tip_y = 0.0, outer
    dent_x, dent_y = inner * math.sin(sector / 2), inner * math.cos(sector / 2)
    edge_x, edge_y = dent_x - tip_x, dent_y - tip_y
    length = math.hypot(edge_x, edge_y)
    return ((px - tip_x) * -edge_y + (py - tip_y) * edge_x) / length


SHAPES = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "heart": heart,
    "ring": ring,
    "cross": cross,
    "diamond": diamond,
    "hexagon": hexagon,
    "crescent": crescent,
}
