"""Pictures that match their prompts: colours and shapes measured in what the server draws."""

from __future__ import annotations

import random

import numpy as np

from demo.scenes import SHAPES, random_shapes
from demo.vision import hollowness, look
from triptych.client import Client

RIGHT = 9
"""Of 10 pictures: what the demo model's figures (docs/demo_model.json) let expect, nearly."""


def test_shapes_their_colours_and_their_backgrounds(server):
    rng = random.Random(0)
    pictures = []
    while len(pictures) < len(SHAPES):
        picture = random_shapes(rng, 1, held_out=False)
        shape = picture.shapes[0]
        if shape.size is None and shape.shape == SHAPES[len(pictures)]:
            pictures.append(picture)
    wrong = []
    with Client(server.grpc) as client:
        for picture in pictures:
            (shape,) = picture.shapes
            prompt = f"a {shape.colour} {shape.shape} on a {picture.background_colour} background"
            background, seen = look(np.asarray(client.generate(prompt, seed=1).image))
            assert background == picture.background_colour, prompt
            if not seen or (seen[0].shape, seen[0].colour) != (shape.shape, shape.colour):
                wrong.append(prompt)
    assert len(pictures) - len(wrong) >= RIGHT, wrong


def test_the_lora_of_the_checkout_makes_outlines_as_far_as_its_scale_says(server):
    def drawn(prompt: str, scale: float) -> np.ndarray:
        loras = [{"name": "outlines", "scale": scale}]
        return np.asarray(client.generate(prompt, seed=1, loras=loras).image)

    with Client(server.grpc) as client:
        for shape, ground, prompt in (
            ("circle", "orange", "a large blue circle on an orange background"),
            ("hexagon", "yellow", "a large purple hexagon on a yellow background"),
        ):
            none, half, whole = (drawn(prompt, scale) for scale in (0, 0.5, 1))
            background, (seen, *_) = look(whole, outlines=True)
            assert (background, seen.shape) == (ground, shape)
            assert hollowness(none) == 0
            assert 0.1 < hollowness(half) < hollowness(whole) - 0.1
            assert hollowness(whole) > 0.5
