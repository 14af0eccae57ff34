"""Measure what the demo model draws, by classical vision, on combinations that training never held.

    python scripts/evaluate_demo.py checkpoints/demo    diffusers' pipeline over a checkpoint
    python scripts/evaluate_demo.py localhost:8001      a running server, over gRPC

Prints a table, and ends with 1 if a figure is below TARGETS; --report writes the figures as JSON,
--sheet a contact sheet of samples.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from demo.architecture import GUIDANCE_SCALE, NUM_INFERENCE_STEPS
from demo.scenes import ShapesPicture, caption, random_landscape, random_shapes
from demo.vision import look, relation

TARGETS = {
    "one shape, held out": {"background": 0.97, "colour": 0.97, "shape": 0.95},
    "two shapes, held out": {"background": 0.97, "relation and both colours": 0.85},
}
Draw = Callable[[list, list], list]


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
        "--scheduler", help="a diffusers class name; the checkpoint's own without it"
    )
    parser.add_argument("--report", type=Path)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    draw = (
        from_checkpoint(args.source, args.scheduler)
        if Path(args.source).is_dir()
        else from_server(args.source)
    )

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
        images = draw(prompts, [rng.getrandbits(32) for _ in pictures])
        checks = [check(picture, image) for picture, image in zip(pictures, images)]
        figures[name] = {key: float(np.mean([c[key] for c in checks])) for key in checks[0]}
        wrong = [p for p, c in zip(prompts, checks) if not all(c.values())]
        print(
            f"{name:22}", "  ".join(f"{k} {v:6.1%}" for k, v in figures[name].items()), flush=True
        )
        print("   wrong, for example:", wrong[:4], flush=True)
    if args.report:
        args.report.write_text(
            json.dumps({"count": args.count, "seed": args.seed, "figures": figures}, indent=2)
            + "\n"
        )
    if args.sheet:
        contact_sheet(draw, args.seed).save(args.sheet)
    below = [
        f"{row}: {key} {figures[row][key]:.1%} of {target:.0%}"
        for row, targets in TARGETS.items()
        for key, target in targets.items()
        if figures[row][key] < target
    ]
    if below:
        sys.exit("below the targets: " + "; ".join(below))


def check(picture: ShapesPicture, image: np.ndarray) -> dict[str, bool]:
    """Which of the caption's facts the picture [H, W, 3] shows."""
    background, seen = look(image)
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


def from_checkpoint(folder: str, scheduler: str) -> Draw:
    import diffusers
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32
    ).to(device)
    if scheduler:
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def draw(prompts, seeds):
        images = []
        for i in range(0, len(prompts), 100):
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[i : i + 100]]
            images += pipeline(
                prompts[i : i + 100],
                num_inference_steps=NUM_INFERENCE_STEPS,
                guidance_scale=GUIDANCE_SCALE,
                generator=generators,
            ).images
        return [np.asarray(image) for image in images]

    return draw


def from_server(url: str) -> Draw:
    from concurrent.futures import ThreadPoolExecutor

    from triptych.client import Client

    client = Client(url)

    def draw_one(prompt: str, seed: int) -> np.ndarray:
        picture = client.generate(
            prompt,
            seed=seed,
            num_inference_steps=NUM_INFERENCE_STEPS,
            guidance_scale=GUIDANCE_SCALE,
        )
        return np.asarray(picture.image)

    def draw(prompts, seeds):
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(draw_one, prompts, seeds))

    return draw


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
