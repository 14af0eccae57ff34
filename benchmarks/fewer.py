"""What fewer evaluations gain a server: pictures/s, and how far they are from the usual ones.

    python benchmarks/fewer.py --graphs DIR [--intervals N ...] [--stops X ...] [--output FILE.json]

DIR: a model repository, whose graphs may have no weights (benchmarks/weightless.py); the distance
means something only where they have. One client and a crowd, with each `cache_interval` of
--intervals and each `guidance_stop` of --stops; their rounds alternate. --tiny: little of
everything, to see that it works. Needs no network.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import load, machine, weightless
from benchmarks.lora import serving
from triptych.client import Client
from triptych_export.picture import psnr

PROMPT = "a red circle on a blue background"
SEEDS = range(4)
"""Of the pictures that are compared."""
MOST = 12
"""Crowds to warm up with."""


def main() -> int:
    options = _options()
    told: dict[str, Any] = {"hardware": machine.hardware(), "gpu": machine.gpu()}
    print(*told.values(), sep="\n", flush=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        repository = Path(scratch) / "repository"
        shutil.copytree(options.graphs, repository, copy_function=weightless.link)
        weightless.fill_repository(repository)
        with serving(repository, Path(scratch), options, told) as (_, client):
            told.update(measured(client, options))
    print(json.dumps(told, indent=2))
    if options.output:
        options.output.write_text(json.dumps(told, indent=2) + "\n")
    return 0


def measured(client: Client, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of one client, pictures/s of a crowd, and decibels, for each way."""
    ways: dict[str, dict[str, Any]] = {"usual": {}}
    ways.update({f"cache_interval {one}": {"cache_interval": one} for one in options.intervals})
    ways.update({f"guidance_stop {one}": {"guidance_stop": one} for one in options.stops})

    def draw(asked: tuple[int, str]) -> np.ndarray:
        seed, way = asked
        told = {"seed": seed, "num_inference_steps": options.steps, **ways[way]}
        return np.asarray(client.generate(PROMPT, timeout=options.limit, **told).image)

    def crowd(way: str) -> list[tuple[int, str]]:
        return [(seed, way) for seed in range(options.pictures * options.clients)]

    found: dict[str, float] = {}
    for way in ways:
        begun = time.perf_counter()
        draw((0, way))
        found[f"{way}: the first picture, s"] = time.perf_counter() - begun
        warm_up(lambda way=way: load.closed(draw, crowd(way), options.clients).per_second)
    usual, *others = ways
    plain = [draw((seed, usual)) for seed in SEEDS]
    for way in others:
        near = [psnr(draw((seed, way)), plain[seed]) for seed in SEEDS]
        found[f"{way}: PSNR of {len(near)} pictures, dB"] = float(np.mean(near))
    alone, crowds = defaultdict(list), defaultdict(list)
    for _ in range(options.rounds):
        for way in ways:
            run = load.closed(draw, [(seed, way) for seed in range(options.pictures)], 1)
            alone[way] += run.latencies
            run = load.closed(draw, crowd(way), options.clients)
            crowds[way].append(run.per_second)
            print(f"{way}: {run.per_second:.3f} pictures/s", flush=True)
    for way in ways:
        name = f"{way}: {options.clients} clients"
        found[f"{way}: 1 client, s"] = median(alone[way])
        found[f"{name}, pictures/s, least"] = min(crowds[way])
        found[f"{name}, pictures/s"] = median(crowds[way])
        found[f"{name}, pictures/s, most"] = max(crowds[way])
        found[f"{name}, times usual"] = median(crowds[way]) / median(crowds[usual])
    return found


def warm_up(crowd: Callable[[], float]) -> None:
    """Call `crowd`, which gives pictures/s, until two in a row are within 5 % of the best.

    Each batch of the deep part and of the shallow one has a CUDA graph, recorded when it first
    comes: in which crowd that is depends on how its pictures fall.
    """
    rates: list[float] = []
    while len(rates) < MOST and (len(rates) < 2 or min(rates[-2:]) < 0.95 * max(rates)):
        rates.append(crowd())
        print(f"warming up: {rates[-1]:.3f} pictures/s", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--graphs", type=Path, default=CHECKOUT / "model_repository")
    add("--intervals", type=int, nargs="*", default=[2, 3, 5])
    add("--stops", type=float, nargs="*", default=[0.8, 0.5])
    add("--steps", type=int, default=50)
    add("--clients", type=int, default=16)
    add("--pictures", type=int, default=4, help="a client and a round")
    add("--rounds", type=int, default=2)
    add("--limit", type=float, default=300, help="seconds for a picture, and for the start")
    add("--tiny", action="store_true", help="few steps, clients and pictures")
    add("--scratch", type=Path, help="where the repository is made")
    add("--output", type=Path)
    options = parser.parse_args()
    if options.tiny:
        options.steps, options.clients, options.pictures, options.rounds = 6, 2, 1, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
