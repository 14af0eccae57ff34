"""Measure what the demo model draws, by classical vision, on combinations that training never held.

    python scripts/evaluate_demo.py checkpoints/demo    diffusers' pipeline over a checkpoint
    python scripts/evaluate_demo.py localhost:8001      a running server, over gRPC

Prints a table, and ends with 1 if a figure is below TARGETS; --schedulers adds a row for each of
them, --report writes the figures as JSON, --sheet a contact sheet of samples.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from demo.architecture import GUIDANCE_SCALE, NUM_INFERENCE_STEPS, PICTURE_SIZE
from demo.draw import draw as draw_scenes
from demo.scenes import Shape, ShapesPicture, caption, random_landscape, random_shapes
from demo.vision import look, relation
from triptych import schedulers

ONE = {"background": 0.97, "colour": 0.97, "shape": 0.95}
TARGETS = {
    "one shape, held out": ONE,
    "two shapes, held out": {"background": 0.97, "relation and both colours": 0.85},
    "red circle made blue": {"background": 0.9, "colour": 0.9, "shape": 0.9},
}
STRENGTH = 0.8
NAMES = [entry.name for entry in schedulers.TABLE]
Image8 = np.ndarray
"""A picture, uint8 [H, W, 3]."""


class Draw(Protocol):
    """Draws a picture for each prompt, from `images` (with STRENGTH) if there are any."""

    def __call__(
        self,
        prompts: list[str],
        seeds: list[int],
        scheduler: str | None = None,
        images: list[Image.Image] | None = None,
    ) -> list[Image8]: ...


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", help="a folder in diffusers' layout, or host:port of a server's gRPC"
    )
    parser.add_argument("--count", type=int, default=400, help="pictures a row of the table")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument(
        "--schedulers",
        nargs="*",
        choices=NAMES,
        metavar="NAME",
        help="schedulers to measure too, each with a quarter of the count; all without a name",
    )
    parser.add_argument("--cache-interval", type=int, help="of the requests, to a server alone")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    if Path(args.source).is_dir():
        draw = from_checkpoint(args.source)
    else:
        draw = from_server(args.source, args.cache_interval)

    figures = {}
    for name, shapes, held_out in (
        ("one shape, held out", 1, True),
        ("one shape, seen", 1, False),
        ("two shapes, held out", 2, True),
        ("two shapes, seen", 2, False),
    ):
        rng = random.Random(f"{args.seed} {name}")
        pictures = [random_shapes(rng, shapes, held_out) for _ in range(args.count)]
        prompts = [caption(picture, rng) for picture in pictures]
        figures[name] = measure(name, pictures, prompts, draw(prompts, seeds(rng, args.count)))
    figures["red circle made blue"] = red_circles(draw, args)
    targets = dict(TARGETS)
    if args.schedulers is not None:
        rng = random.Random(f"{args.seed} schedulers")
        pictures = [random_shapes(rng, 1, held_out=False) for _ in range(args.count // 4)]
        prompts = [caption(picture, rng) for picture in pictures]
        drawn_by = seeds(rng, len(pictures))
        for name in args.schedulers or NAMES:
            targets[name] = ONE
            figures[name] = measure(name, pictures, prompts, draw(prompts, drawn_by, name))
    if args.report:
        args.report.write_text(
            json.dumps({"count": args.count, "seed": args.seed, "figures": figures}, indent=2)
            + "\n"
        )
    if args.sheet:
        contact_sheet(draw, args.seed).save(args.sheet)
    below = [
        f"{row}: {key} {figures[row][key]:.1%} of {target:.0%}"
        for row, wanted in targets.items()
        for key, target in wanted.items()
        if figures[row][key] < target
    ]
    if below:
        sys.exit("below the targets: " + "; ".join(below))


def measure(
    name: str, pictures: list, prompts: list, images: list, facts: Callable | None = None
) -> dict[str, float]:
    """The share of pictures in which each of the `facts` (`check`) is right, printed too."""
    checks = list(workers().map(facts or check, pictures, images, chunksize=8))
    shares = {key: float(np.mean([c[key] for c in checks])) for key in checks[0]}
    wrong = [p for p, c in zip(prompts, checks) if not all(c.values())]
    print(f"{name:26}", "  ".join(f"{k} {v:6.1%}" for k, v in shares.items()), flush=True)
    print("   wrong, for example:", wrong[:4], flush=True)
    return shares


@lru_cache(maxsize=None)
def workers() -> ProcessPoolExecutor:
    """Processes for `check`, begun without what this one has loaded (CUDA among it)."""
    return ProcessPoolExecutor(mp_context=get_context("forkserver"))


def red_circles(draw: Draw, args) -> dict[str, float]:
    """How often a red circle on white becomes a blue one on yellow."""
    rng = random.Random(f"{args.seed} red circles")
    circles = [random_shapes(rng, 1, held_out=False).shapes[0] for _ in range(args.count)]
    red = [
        ShapesPicture((Shape("circle", "red", None, c.x, c.y, c.radius),), None, "white")
        for c in circles
    ]
    pixels = draw_scenes(red, PICTURE_SIZE, np)
    images = [Image.fromarray(np.uint8(p.transpose(1, 2, 0) * 255 + 0.5)) for p in pixels]
    blue = ShapesPicture((Shape("circle", "blue", None, 0.5, 0.5, 0.2),), None, "yellow")
    prompts = ["a blue circle on a yellow background"] * args.count
    drawn = draw(prompts, seeds(rng, args.count), images=images)
    return measure("red circle made blue", [blue] * args.count, prompts, drawn)


def seeds(rng: random.Random, count: int) -> list[int]:
    return [rng.getrandbits(32) for _ in range(count)]


def check(picture: ShapesPicture, image: np.ndarray, outlines: bool = False) -> dict[str, bool]:
    """Which of the caption's facts the picture [H, W, 3] shows; `outlines` as for look."""
    background, seen = look(image, outlines)
    result = {"background": background == picture.background_colour}
    wanted = picture.shapes
    if len(wanted) == 1:
        found = seen[0] if seen else None
        result["colour"] = bool(found) and found.colour == wanted[0].colour
        result["shape"] = bool(found) and found.shape == wanted[0].shape
        return result
    pair = [
        next((s for s in seen if (s.shape, s.colour) == (w.shape, w.colour)), None) for w in wanted
    ]
    result["both shapes and colours"] = len(seen) == 2 and all(pair)
    colours = sorted(seen[:2], key=lambda s: s.colour != wanted[0].colour)
    result["relation and both colours"] = (
        len(seen) == 2
        and [s.colour for s in colours] == [w.colour for w in wanted]
        and picture.relation
        in (relation(*colours), wanted[0].colour == wanted[1].colour and relation(*colours[::-1]))
    )
    return result


def from_checkpoint(folder: str) -> Draw:
    import diffusers
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32
    ).to(device)
    from_pictures = diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components)
    own = pipeline.scheduler
    entries = {entry.name: entry for entry in schedulers.TABLE}

    def draw(prompts, seeds, scheduler=None, images=None):
        used = from_pictures if images else pipeline
        used.set_progress_bar_config(disable=True)
        used.scheduler = own
        if scheduler:
            kind = getattr(diffusers, entries[scheduler].diffusers)
            used.scheduler = kind.from_config(own.config, **entries[scheduler].options)
        drawn = []
        for i in range(0, len(prompts), 100):
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[i : i + 100]]
            start = {"image": images[i : i + 100], "strength": STRENGTH} if images else {}
            drawn += used(
                prompts[i : i + 100],
                num_inference_steps=NUM_INFERENCE_STEPS,
                guidance_scale=GUIDANCE_SCALE,
                generator=generators,
                **start,
            ).images
        return [np.asarray(image) for image in drawn]

    return draw


def from_server(url: str, cache_interval: int | None = None) -> Draw:
    from concurrent.futures import ThreadPoolExecutor

    from triptych.client import Client

    client = Client(url)

    def draw_one(prompt: str, seed: int, scheduler: str | None, image) -> Image8:
        start = {"image": png(image), "strength": STRENGTH} if image else {}
        picture = client.generate(
            prompt,
            seed=seed,
            num_inference_steps=NUM_INFERENCE_STEPS,
            guidance_scale=GUIDANCE_SCALE,
            **({"scheduler": scheduler} if scheduler else {}),
            **({"cache_interval": cache_interval} if cache_interval else {}),
            **start,
        )
        return np.asarray(picture.image)

    def draw(prompts, seeds, scheduler=None, images=None):
        count = len(prompts)
        with ThreadPoolExecutor(8) as pool:
            return list(
                pool.map(draw_one, prompts, seeds, [scheduler] * count, images or [None] * count)
            )

    return draw


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def contact_sheet(draw: Draw, seed: int, columns: int = 8, rows: int = 6) -> Image.Image:
    """Shapes above, landscapes below; each drawn once, none chosen."""
    rng = random.Random(seed)
    shapes = [random_shapes(rng, 1 + i % 2, held_out=True) for i in range(columns * rows // 2)]
    prompts = [caption(p, rng) for p in (*shapes, *(random_landscape(rng) for _ in shapes))]
    images = np.stack(draw(prompts, list(range(len(prompts)))))
    height, width = images.shape[1:3]
    grid = (
        images.reshape(rows, columns, height, width, 3)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, 3)
    )
    return Image.fromarray(grid).resize((columns * 128, rows * 128), Image.LANCZOS)


if __name__ == "__main__":
    main()
