"""Draw prompts with fewer evaluations of the UNet, and time it: for docs/schedulers.md.

    python scripts/draw_fewer.py [--rounds 5]

writes docs/fewer.png, a row for each prompt and a column for each of SETTINGS, and prints the
table: seconds of one picture at a time, median with the least and the most of all rounds, which
alternate, and the PSNR to the picture with all evaluations, mean of the prompts.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

import numpy as np
from PIL import Image

from benchmarks import machine
from scripts.own_server import with_server
from scripts.sheet import sheet
from triptych.client import Client
from triptych.server.running import RunningServer
from triptych_export.picture import psnr

PROMPTS = (
    ("a yellow sun over green hills at sunset", 5),
    ("a yellow square left of a cyan triangle on a black background", 2),
)
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"guidance_stop": 0.8},
    {"guidance_stop": 0.5},
    {"cache_interval": 2},
    {"cache_interval": 3},
    {"cache_interval": 5},
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(machine.hardware())
    return with_server(lambda server: _draw(server, rounds))


def _draw(server: RunningServer, rounds: int) -> int:
    pictures: dict[tuple[int, int], Image.Image] = {}
    seconds: list[list[float]] = [[] for _ in SETTINGS]
    with Client(server.grpc) as client:
        for turn in range(rounds + 1):
            for column, settings in enumerate(SETTINGS):
                for row, (prompt, seed) in enumerate(PROMPTS):
                    begun = time.perf_counter()
                    drawn = client.generate(prompt, seed=seed, **settings)
                    if turn:  # the first loads what a setting needs
                        seconds[column].append(time.perf_counter() - begun)
                    pictures[row, column] = drawn.image
    rows = [
        [pictures[row, column] for column in range(len(SETTINGS))] for row in range(len(PROMPTS))
    ]
    sheet(rows).save(CHECKOUT / "docs" / "fewer.png", optimize=True)
    print("| request | s a picture | times | PSNR |", "| --- | --- | --- | --- |", sep="\n")
    for column, settings in enumerate(SETTINGS):
        print(_line(column, settings, seconds, pictures))
    return 0


def _line(column: int, settings: dict[str, Any], seconds: list[list[float]], pictures) -> str:
    (said,) = [f"`{name}` {value}" for name, value in settings.items()] or ["all evaluations"]
    own, times = seconds[column], median(seconds[0]) / median(seconds[column])
    apart = [
        psnr(np.asarray(pictures[row, column]), np.asarray(pictures[row, 0]))
        for row in range(len(PROMPTS))
    ]
    told = f"{mean(apart):.1f} dB" if settings else ""
    spread = f"{median(own):.2f} ({min(own):.2f} to {max(own):.2f})"
    return f"| {said} | {spread} | {times:.2f} | {told} |"


if __name__ == "__main__":
    sys.exit(main())
