"""What a picture shows, drawn at random, and captions for it.

Two kinds: one or two shapes on a plain background, and a landscape (sky with a sun or moon over
hills, sea or both, at a time of day). Pairs in HELD_OUT never appear in training: the evaluation
draws them.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import Union

from demo.palette import NAMES as COLOURS
from demo.shapes import SHAPES as _SHAPES

SHAPES = tuple(_SHAPES)
RELATIONS = ("left of", "right of", "above", "below")
TIMES = ("sunrise", "noon", "sunset", "night")
HILLS = ("green", "brown", "purple", "orange", "gray")
SEAS = ("blue", "cyan", "purple")
SUNS = ("yellow", "orange", "red", "white")
MOONS = ("white", "yellow", "gray", "orange")
HELD_OUT = frozenset(
    (shape, COLOURS[(5 * i + 3 + 7 * j) % len(COLOURS)])
    for j in (0, 1)
    for i, shape in enumerate(SHAPES)
)
PLAIN_BACKGROUND = "white"
RADII = {"small": (0.10, 0.14), None: (0.19, 0.26), "large": (0.31, 0.37)}
RADII_OF_TWO = {"small": (0.095, 0.115), None: (0.14, 0.17), "large": (0.19, 0.205)}


@dataclass(frozen=True)
class Shape:
    """One shape; position and radius as fractions of the picture's side."""

    shape: str
    colour: str
    size: str | None
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class ShapesPicture:
    """One shape, or two of which the first stands in `relation` to the second."""

    shapes: tuple[Shape, ...]
    relation: str | None
    background: str | None

    @property
    def background_colour(self) -> str:
        return self.background or PLAIN_BACKGROUND


@dataclass(frozen=True)
class Landscape:
    """A 'sun' or 'moon' over hills, sea or both; `seed` decides ridges, stars, positions."""

    light: str
    light_colour: str
    hills: str | None
    sea: str | None
    time: str
    seed: int


Picture = Union[ShapesPicture, Landscape]


def random_picture(rng: random.Random) -> Picture:
    """As in training: 30 % one shape, 50 % two, 20 % landscapes; none with a held-out pair."""
    kind = rng.random()
    if kind < 0.2:
        return random_landscape(rng)
    return random_shapes(rng, 1 if kind < 0.5 else 2, held_out=False)


def random_shapes(rng: random.Random, count: int, held_out: bool) -> ShapesPicture:
    """One or two shapes; with `held_out` the first is a held-out pair, else none is."""
    while True:
        pairs = [(rng.choice(SHAPES), rng.choice(COLOURS)) for _ in range(count)]
        if held_out:
            pairs[0] = rng.choice(sorted(HELD_OUT))
        elif any(pair in HELD_OUT for pair in pairs):
            continue
        background = rng.choice(COLOURS) if rng.random() < 0.8 else None
        if (background or PLAIN_BACKGROUND) in [colour for _, colour in pairs]:
            continue
        if count == 2 and pairs[0] == pairs[1]:
            continue
        break
    sizes = [rng.choice((None, None, "small", "large")) for _ in range(count)]
    if count == 1:
        radius = rng.uniform(*RADII[sizes[0]])
        x, y = (0.5 + rng.uniform(-1, 1) * 0.06 for _ in "xy")
        return ShapesPicture((Shape(*pairs[0], sizes[0], x, y, radius),), None, background)
    relation = rng.choice(RELATIONS)
    apart = -0.24 if relation in ("left of", "above") else 0.24
    places = []
    for side in (apart, -apart):
        along, across = 0.5 + side + rng.uniform(-1, 1) * 0.02, 0.5 + rng.uniform(-1, 1) * 0.04
        places.append((along, across) if relation in ("left of", "right of") else (across, along))
    shapes = tuple(
        Shape(*pair, size, *place, rng.uniform(*RADII_OF_TWO[size]))
        for pair, size, place in zip(pairs, sizes, places)
    )
    return ShapesPicture(shapes, relation, background)


def random_landscape(rng: random.Random) -> Landscape:
    time = rng.choice(TIMES)
    light = "moon" if rng.random() < (0.9 if time == "night" else 0.1) else "sun"
    ground = rng.choice(("hills", "hills", "sea", "both"))
    return Landscape(
        light,
        rng.choice(SUNS if light == "sun" else MOONS),
        rng.choice(HILLS) if ground != "sea" else None,
        rng.choice(SEAS) if ground != "hills" else None,
        time,
        rng.getrandbits(31),
    )


def caption(picture: Picture, rng: random.Random) -> str:
    """One of the ways to say what the picture shows; now and then with an idle word."""
    text = (
        _landscape_caption(picture, rng)
        if isinstance(picture, Landscape)
        else _shapes_caption(picture, rng)
    )
    text = (
        rng.choice(
            ("", "", "", "", "a picture of ", "a drawing of ", "an image of ", "a painting of ")
        )
        + text
    )
    if rng.random() < 0.1:
        filler = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 9)))
        filler = rng.choice(
            (filler, "beautiful", "simple", "please", "nice", "minimalist", "4k", "high quality")
        )
        text = rng.choice((f"{text}, {filler}", f"{filler} {text}"))
    return text


def _shapes_caption(picture: ShapesPicture, rng: random.Random) -> str:
    things = [_thing(shape, rng) for shape in picture.shapes]
    if len(things) == 1:
        text = things[0]
    else:
        relation, reverse = picture.relation, rng.random() < 0.15
        if reverse:
            relation = {
                "left of": "right of",
                "right of": "left of",
                "above": "below",
                "below": "above",
            }[relation]
            things.reverse()
        said = {
            "left of": ("left of", "to the left of", "on the left of"),
            "right of": ("right of", "to the right of", "on the right of"),
            "above": ("above", "above", "over"),
            "below": ("below", "below", "under"),
        }[relation]
        text = f"{things[0]} {rng.choice(said)} {things[1]}"
    if picture.background:
        ground = f"{_article(picture.background)} {picture.background} background"
        text += " " + rng.choice(
            (f"on {ground}", f"on {ground}", f"on {picture.background}", f"against {ground}")
        )
    return text


def _thing(shape: Shape, rng: random.Random) -> str:
    words = [shape.colour, shape.shape]
    if shape.size:
        words.insert(
            0,
            {
                "small": rng.choice(("small", "tiny", "little")),
                "large": rng.choice(("large", "big")),
            }[shape.size],
        )
    return " ".join(words if rng.random() < 0.15 else [_article(words[0]), *words])


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _landscape_caption(picture: Landscape, rng: random.Random) -> str:
    light = f"{_article(picture.light_colour)} {picture.light_colour} {picture.light}"
    hills = f"{picture.hills} hills" if picture.hills else None
    sea = rng.choice((f"a {picture.sea} sea", f"the {picture.sea} sea")) if picture.sea else None
    ground = (
        rng.choice((f"{hills} and {sea}", f"{hills} by {sea}")) if hills and sea else hills or sea
    )
    time = {
        "sunrise": ("at sunrise", "at dawn"),
        "noon": ("at noon", "at midday"),
        "sunset": ("at sunset", "at dusk"),
        "night": ("at night", "at midnight"),
    }[picture.time]
    return f"{light} {rng.choice(('over', 'above'))} {ground} {rng.choice(time)}"
