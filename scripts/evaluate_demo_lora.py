"""Measure what the demo model draws with its LoRA `outlines`, on a server of its own.

    python scripts/evaluate_demo_lora.py

Prints, for each scale, in which share of pictures the caption's facts are right, and in which the
shape is an outline. No rings, which are hollow without it, and no small shapes, which lines fill.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from demo.scenes import ShapesPicture, caption, random_shapes
from demo.vision import hollowness
from scripts.evaluate_demo import check, measure, seeds
from scripts.own_server import with_server
from triptych.client import Client
from triptych.server.running import RunningServer

NAME = "outlines"
SCALES = (0, 0.5, 1)
HOLLOW = 0.2
"""The hollowness over which a shape counts as outlined."""


def main() -> int:
    """0 when everything is drawn, 1 if the server cannot start."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="pictures a scale")
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args()
    return with_server(lambda server: evaluate(server, options))


def evaluate(server: RunningServer, options: argparse.Namespace) -> int:
    rng = random.Random(f"{options.seed} {NAME}")
    pictures: list[ShapesPicture] = []
    while len(pictures) < options.count:
        picture = random_shapes(rng, 1, held_out=False)
        if picture.shapes[0].shape != "ring" and picture.shapes[0].size != "small":
            pictures.append(picture)
    prompts = [caption(picture, rng) for picture in pictures]
    drawn_by = seeds(rng, options.count)
    with Client(server.grpc) as client:
        for scale in SCALES:
            loras = [{"name": NAME, "scale": scale}]
            images = [
                np.asarray(client.generate(prompt, seed=seed, loras=loras).image)
                for prompt, seed in zip(prompts, drawn_by)
            ]
            measure(f"{NAME}, scale {scale:g}", pictures, prompts, images, check_outlined)
    return 0


def check_outlined(picture: ShapesPicture, image: np.ndarray) -> dict[str, bool]:
    """Which facts the picture [H, W, 3] of one shape shows, and whether the shape is an outline."""
    outlined = hollowness(image) > HOLLOW
    return {**check(picture, image, outlined), "outlined": outlined}


if __name__ == "__main__":
    sys.exit(main())
