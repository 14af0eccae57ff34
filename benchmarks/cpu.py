"""How fast the server draws on this machine's processor, beside the same work without a server.

    python benchmarks/cpu.py [--rounds N] [--steps N]

One table: the server at 1 to 16 clients, a burst, Poisson arrivals of mixed step counts; the same
one at a time in one process on the same ONNX Runtime, and in batches of 8; diffusers with the same
weights, where .venv-full is installed. What is compared alternates, round by round. Prompts are all
different.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import load, machine
from benchmarks.different import Requests
from benchmarks.load import Run, percentile
from benchmarks.table import Table
from benchmarks.worker import Worker
from triptych.model_files import ModelFiles
from triptych.server.running import RunningServer

SERVED, ALONE, DIFFUSERS = "served", "one process", "diffusers"
CLIENTS = (2, 4, 8, 16)
BATCH = 8
MIXED_STEPS = (8, 20, 8, 50, 20)
MEAN_STEPS = sum(MIXED_STEPS) / len(MIXED_STEPS)
MIXED_LOAD = 0.7
"""Arrivals of mixed step counts: part of what one at a time could do."""
TORCH = CHECKOUT / ".venv-full" / "bin" / "python"
CROWD = 16
LATENCY_TARGET, GAIN_TARGET, ENGINE_TARGET = 1.10, 1.3, 0.9
FROM_PICTURE = "a picture from a picture, 1 client"
MIXED = f"a crowd of both kinds and three sizes, {BATCH} clients"
TOGETHER = f"{ALONE}, the crowd in batches"


class Served:
    """sd_ensemble over gRPC."""

    def __init__(self, running: RunningServer) -> None:
        self._client = grpcclient.InferenceServerClient(running.grpc)
        self._metrics = running.metrics
        self.version = self._client.get_server_metadata().version

    def draw(self, request: str) -> bytes:
        """OUTPUT_0."""
        tensor = grpcclient.InferInput("INPUT_0", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[request.encode()]], dtype=object))
        return self._client.infer("sd_ensemble", [tensor]).as_numpy("OUTPUT_0").item()

    def counted(self, run: Callable[[], Run]) -> Run:
        """`run()` with the UNet's calls and rows in it."""
        before = load.calls_and_rows(self._metrics)
        done = run()
        done.calls, done.rows = load.calls_and_rows(self._metrics) - before
        return done


class Bench:
    """What is compared, and what was measured of it."""

    def __init__(
        self,
        requests: Requests,
        served: Served,
        process: Worker,
        diffusers: Worker | None,
        takes_pictures: bool,
    ) -> None:
        self.table = Table()
        self.unet_seconds: dict[int, list[float]] = {2: [], 2 * BATCH: []}
        self._requests = requests
        self._served = served
        self._process = process
        self.has_diffusers = diffusers is not None
        self.takes_pictures = takes_pictures
        self._draw = {SERVED: served.draw, ALONE: lambda one: process.call("pictures", [one])}
        if diffusers is not None:
            self._draw[DIFFUSERS] = lambda one: diffusers.call("picture", one)

    def warm_up(self) -> None:
        """Also sees to it that the work is the same: the same picture, to the byte."""
        kinds = [self._requests.take(1)]
        if self.takes_pictures:
            kinds.append(self._requests.from_pictures(1))
        for (request,) in kinds:
            drawn = hashlib.sha256(self._served.draw(request)).hexdigest()
            if drawn != self._process.call("digest", request):
                raise RuntimeError("the server and the process beside it draw different pictures")
        load.arriving(self._served.draw, self._requests.take(16), [0.0] * 16)
        self._process.call("pictures", self._requests.take(BATCH))
        for draw in self._draw.values():
            load.closed(draw, self._requests.take(2), 1)
            if self.takes_pictures:
                load.closed(draw, self._requests.from_pictures(2), 1)

    def round(self, number: int) -> None:
        """Everything once."""
        for _ in range(4):
            for name in self._draw:
                self._clients(name, 1, 1)
        for clients in CLIENTS:
            self._clients(SERVED, clients, clients)
        self._clients(ALONE, BATCH, BATCH)
        seconds = self._process.call("pictures", self._requests.take(BATCH))
        self.table.add(f"{ALONE}, batches of {BATCH}", Run([seconds] * BATCH, seconds))
        self._arrivals(f"a burst of {BATCH}", self._requests.take(BATCH), [0.0] * BATCH)
        mixed = self._requests.take(10, MIXED_STEPS)
        seconds = self._process.call("pictures", self._requests.take(1, (round(MEAN_STEPS),)))
        rate = MIXED_LOAD / seconds
        what = f"Poisson arrivals of {', '.join(map(str, sorted(set(MIXED_STEPS))))} steps"
        self._arrivals(what, mixed, load.poisson(len(mixed), rate, seed=number))
        for rows, seconds in self.unet_seconds.items():
            seconds += self._process.call("unet_seconds", rows, 4)
        if self.takes_pictures:
            self._pictures()

    def _pictures(self) -> None:
        for _ in range(4):
            for name in self._draw:
                self._measure(name, FROM_PICTURE, load.closed, self._requests.from_pictures(1), 1)
        for name in (SERVED, ALONE):
            self._measure(name, MIXED, load.closed, self._requests.crowd(CROWD), BATCH)
        seconds = self._process.call("pictures", self._requests.crowd(CROWD))
        self.table.add(TOGETHER, Run([seconds] * CROWD, seconds))

    def _clients(self, name: str, clients: int, pictures: int) -> None:
        what = f"{clients} client{'s' if clients > 1 else ''}"
        self._measure(name, what, load.closed, self._requests.take(pictures), clients)

    def _arrivals(self, what: str, requests: list[str], times: list[float]) -> None:
        for name in (SERVED, ALONE):
            self._measure(name, what, load.arriving, requests, times)

    def _measure(self, name: str, what: str, send: Callable[..., Run], *arguments: Any) -> None:
        run = functools.partial(send, self._draw[name], *arguments)
        self.table.add(f"{name}, {what}", self._served.counted(run) if name == SERVED else run())


def conclusions(bench: Bench) -> list[str]:
    """The figures that there are targets for, each with its target."""
    table = bench.table
    served, alone = (table.latency(f"{name}, 1 client") for name in (SERVED, ALONE))
    lines = [f"served / one process, latency: {served / alone:.3f} (target: <= {LATENCY_TARGET})"]
    if bench.has_diffusers:
        other = table.latency(f"{DIFFUSERS}, 1 client")
        lines.append(f"served / diffusers, latency: {served / other:.3f} (target: < 1)")
    single = table.rate(f"{ALONE}, 1 client")
    gain = table.rate(f"{SERVED}, {BATCH} clients") / single
    engine = table.rate(f"{ALONE}, batches of {BATCH}") / single
    few, many = (percentile(seconds, 50) / rows for rows, seconds in bench.unet_seconds.items())
    lines += [
        f"served at {BATCH} clients / one at a time, pictures/s: {gain:.3f} "
        f"(target: >= {GAIN_TARGET}, or {ENGINE_TARGET} of the next line)",
        f"the engine's own gain from batches of {BATCH}: {engine:.3f}; ours / it: "
        f"{gain / engine:.3f}",
        f"UNet alone: {1e3 * few:.1f} ms a row in calls of 2 rows, {1e3 * many:.1f} in calls of "
        f"{2 * BATCH}: a gain of {few / many:.3f}",
    ]
    return lines + (_of_pictures(bench) if bench.takes_pictures else [])


def _of_pictures(bench: Bench) -> list[str]:
    table = bench.table
    served = table.latency(f"{SERVED}, {FROM_PICTURE}")
    lines = []
    if bench.has_diffusers:
        ratio = served / table.latency(f"{DIFFUSERS}, {FROM_PICTURE}")
        lines = [f"from a picture: served / diffusers, latency: {ratio:.3f} (target: < 1)"]
    single = table.rate(f"{ALONE}, {MIXED}")
    gain, engine = (table.rate(name) / single for name in (f"{SERVED}, {MIXED}", TOGETHER))
    told = f"the crowd: served at {BATCH} clients / one at a time, pictures/s: {gain:.3f}"
    return [*lines, f"{told} (target: >= 1); the engine's own gain: {engine:.3f}"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=CHECKOUT / "model_repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each picture, instead of the model's")
    options = parser.parse_args()
    repository = options.repository.resolve()
    usual = ModelFiles.load(repository / "tokenizer" / "1").defaults()
    if options.steps:
        usual = replace(usual, num_inference_steps=options.steps)
    size = (repository / "unet" / "1" / "model.onnx").stat().st_size
    before = machine.processor_seconds()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(RunningServer(repository, folder / "server.log"))
        served = Served(running)
        process = stack.enter_context(Worker(sys.executable, "monolithic.py", repository))
        diffusers, about = None, f"no diffusers: {TORCH} is not there, see make test-full"
        if TORCH.exists():
            diffusers = stack.enter_context(Worker(TORCH, "diffusers_pipeline.py", repository))
            about = diffusers.call("versions")
        takes_pictures = (repository / "vae_encoder").is_dir()
        if not takes_pictures:
            about += "; no vae_encoder, so nothing is drawn from pictures"
        bench = Bench(Requests(usual), served, process, diffusers, takes_pictures)
        print(machine.hardware())
        print(running.engines())
        print(f"Triton {served.version}, {machine.versions('onnxruntime', 'numpy')}; {about}")
        print(
            f"{usual.height}x{usual.width}, {usual.num_inference_steps} steps, guidance "
            f"{usual.guidance_scale}, {usual.scheduler}; unet/1/model.onnx of {size / 1e6:.1f} MB",
            flush=True,
        )
        bench.warm_up()
        for number in range(options.rounds):
            begun = time.monotonic()
            bench.round(number)
            took = time.monotonic() - begun
            told = f"round {number + 1} of {options.rounds}: {took:.0f} s"
            print(told, file=sys.stderr, flush=True)
    print(bench.table)
    print(*conclusions(bench), sep="\n")
    others = machine.others(before)
    print(f"other processes took {others:.0%} of the cores", ": NOT quiet" if others > 0.03 else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
