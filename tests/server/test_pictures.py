"""Pictures that match their prompts: colours and shapes measured in what the server draws."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from demo.scenes import SHAPES, random_shapes
from demo.vision import look
from triptych.client import Client

REPORT = Path(__file__).resolve().parents[2] / "docs" / "demo_model.json"

pytestmark = pytest.mark.skipif(
    not REPORT.exists(), reason="the UNet in model_repository is not trained yet"
)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_its_colour_and_its_background(server, shape):
    rng = random.Random(shape)
    while True:
        picture = random_shapes(rng, 1, held_out=False)
        if picture.shapes[0].shape == shape and picture.shapes[0].size is None:
            break
    colour, background = picture.shapes[0].colour, picture.background_colour
    prompt = f"a {colour} {shape} on a {background} background"
    with Client(server.grpc) as client:
        drawn = client.generate(prompt, seed=1).image
    found_background, seen = look(np.asarray(drawn))
    assert found_background == background, prompt
    assert seen and (seen[0].shape, seen[0].colour) == (shape, colour), prompt
