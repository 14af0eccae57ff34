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

RECORDED = 3
"""Runs after which a CUDA graph is recorded."""

WARM = 1.5
"""Seconds before the count, in which clocks rise."""

OTHERS_TURN = 0.0005
"""Seconds between two runs, in which another process takes its turn."""


class Worker(threading.Thread):
    """Runs a network again and again, at most once in `every` seconds, and counts.

    It loads the network itself: a CUDA graph of ONNX Runtime is of the thread that recorded it. One
    at a time, since no other thread may use the GPU while a graph is recorded. `problem` is what
    ended it early.
    """

    _loading = threading.Lock()

    def __init__(self, options: argparse.Namespace, model: str, turn: Any) -> None:
        super().__init__()
        self._options, self._model = options, model
        self._turn = turn or contextlib.nullcontext()
        self.runs = 0
        self.loaded, self.begin, self.over = (threading.Event() for _ in range(3))
        self.problem: Exception | None = None

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:
            self.problem = error
        finally:
            self.loaded.set()

    def _run(self) -> None:
        place = NETWORKS.index(self._model)
        rows, every = self._options.rows[place], self._options.every[place]
        config = engine.config(self._options.repository, self._model)
        config["parameters"][engine.TUNING] = {"string_value": str(rows)}
        request = engine.inputs(self._options.repository)[self._model](rows)
        with self._loading:
            network = Network(self._options.repository / self._model / "1", config)
            for _ in range(RECORDED):
                self._once(network, request)
        self.loaded.set()
        self.begin.wait()
        while not self.over.is_set():
            due = time.perf_counter() + every
            with self._turn:
                self._once(network, request)
            self.runs += 1
            self.over.wait(max(OTHERS_TURN, due - time.perf_counter()))

    def _once(self, network: Network, request: dict[str, Any]) -> None:
        (result,) = network.run([request])
        if isinstance(result, Exception):
            raise result


def work(options: argparse.Namespace, models: list[str], turn: Any, pipe: Any) -> None:
    """In a process: these networks, one thread each; `pipe` gets their runs a second.

    Or, in their place, what ended one of them.
    """
    workers = {model: Worker(options, model, turn) for model in models}
    for worker in workers.values():
        worker.start()
    for worker in workers.values():
        worker.loaded.wait()
    pipe.send("loaded")
    pipe.recv()
    for worker in workers.values():
        worker.begin.set()
    time.sleep(WARM)
    before, begun = {model: worker.runs for model, worker in workers.items()}, time.perf_counter()
    time.sleep(options.seconds)
    passed = time.perf_counter() - begun
    found = {model: (one.runs - before[model]) / passed for model, one in workers.items()}
    problems = [f"{model}: {one.problem}" for model, one in workers.items() if one.problem]
    pipe.send("; ".join(problems) or found)
    pipe.recv()  # goes on until all have counted
    for worker in workers.values():
        worker.over.set()
    for worker in workers.values():
        worker.join()


def rates(
    processes: list[list[str]], options: argparse.Namespace, turns: bool = False
) -> dict[str, float]:
    """Runs a second of each network, when these processes work at once.

    Raises RuntimeError with what ended one of them.
    """
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
    counted = [pipe.recv() for pipe in pipes]
    for pipe in pipes:
        pipe.send("end")
    for process in started:
        process.join()
    for one in counted:
        if isinstance(one, str):
            raise RuntimeError(one)
    return {model: rate for one in counted for model, rate in one.items()}


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
