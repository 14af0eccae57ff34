"""What a GPU gives networks that work at the same time.

    python benchmarks/side_by_side.py REPOSITORY [--rows 24 8 4] [--every 0 0 0.08]

The UNet, the VAE's decoder and the text encoder run again and again: each alone, together in
processes of their own, as the server has them, in turns, where a run waits until no other process
runs, and together in one process. Printed: runs a second, and the sum of what each has of its rate
alone: 1 is a GPU that loses nothing by it.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import threading
import time
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import engine, machine
from triptych.fastdeploy.network import Network

NETWORKS = ("unet", "vae_decoder", "text_encoder")

WARM = 1.5
"""Seconds before the count: graphs are recorded, clocks rise."""

OTHERS_TURN = 0.0005
"""Seconds between two runs, in which another process takes its turn."""


class Worker(threading.Thread):
    """Runs a network again and again, at most once in `every` seconds, and counts."""

    def __init__(self, options: argparse.Namespace, model: str, turn: Any) -> None:
        super().__init__()
        place = NETWORKS.index(model)
        rows, self._every = options.rows[place], options.every[place]
        config = engine.config(options.repository, model)
        config["parameters"][engine.TUNING] = {"string_value": str(rows)}
        self._network = Network(options.repository / model / "1", config)
        self._request = engine.inputs(options.repository)[model](rows)
        self._turn = turn or contextlib.nullcontext()
        self.runs = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            due = time.perf_counter() + self._every
            with self._turn:
                (result,) = self._network.run([self._request])
            if isinstance(result, Exception):
                raise result
            self.runs += 1
            self.over.wait(max(OTHERS_TURN, due - time.perf_counter()))


def work(options: argparse.Namespace, models: list[str], turn: Any, pipe: Any) -> None:
    """In a process: these networks, one thread each; `pipe` gets their runs a second."""
    workers = {model: Worker(options, model, turn) for model in models}
    pipe.send("loaded")
    pipe.recv()
    for worker in workers.values():
        worker.start()
    time.sleep(WARM)
    before, begun = {model: worker.runs for model, worker in workers.items()}, time.perf_counter()
    time.sleep(options.seconds)
    passed = time.perf_counter() - begun
    pipe.send({model: (one.runs - before[model]) / passed for model, one in workers.items()})
    pipe.recv()  # goes on until all have counted
    for worker in workers.values():
        worker.over.set()
    for worker in workers.values():
        worker.join()


def rates(
    processes: list[list[str]], options: argparse.Namespace, turns: bool = False
) -> dict[str, float]:
    """Runs a second of each network, when these processes work at once."""
    spawning = multiprocessing.get_context("spawn")
    turn = spawning.Lock() if turns else None
    pipes, started = [], []
    for models in processes:
        ours, theirs = spawning.Pipe()
        process = spawning.Process(target=work, args=(options, models, turn, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        started.append(process)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("begin")
    found = {model: rate for pipe in pipes for model, rate in pipe.recv().items()}
    for pipe in pipes:
        pipe.send("end")
    for process in started:
        process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("repository", type=Path)
    add("--rows", type=int, nargs=3, default=[24, 8, 4], help=f"of {', '.join(NETWORKS)}")
    add("--every", type=float, nargs=3, default=[0, 0, 0.08], help="seconds between two runs")
    add("--seconds", type=float, default=8)
    options = parser.parse_args()
    print(machine.hardware(), machine.gpu(), sep="\n")
    alone: dict[str, float] = {}
    full = argparse.Namespace(**{**vars(options), "every": [0, 0, 0]})
    for model in NETWORKS:
        alone.update(rates([[model]], full))
    named = (f"{model}, rows {rows}" for model, rows in zip(NETWORKS, options.rows))
    print(f"| runs/s | {' | '.join(named)} | of the rates alone |", "| --- " * 5 + "|", sep="\n")
    print(f"| alone | {' | '.join(f'{alone[model]:.2f}' for model in NETWORKS)} | |", flush=True)
    two, three = NETWORKS[:2], NETWORKS
    for name, processes, turns in (
        ("two processes", [[model] for model in two], False),
        ("two processes in turns", [[model] for model in two], True),
        ("three processes", [[model] for model in three], False),
        ("three processes in turns", [[model] for model in three], True),
        ("one process", [list(two)], False),
    ):
        found = rates(processes, options, turns)
        share = sum(rate / alone[model] for model, rate in found.items())
        cells = (f"{found[model]:.2f}" if model in found else "" for model in NETWORKS)
        print(f"| {name} | {' | '.join(cells)} | {share:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
