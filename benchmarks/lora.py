"""What LoRAs cost a server: the first picture of one, later ones, and a crowd of different ones.

    python benchmarks/lora.py --graphs DIR [--output FILE.json]

DIR: a model repository, whose graphs may have no weights (benchmarks/weightless.py). The LoRAs are
random, of rank 32 on the attention of the UNet. --tiny: the same with little of everything, to see
that it works, as on a processor with the demo model. Needs no network.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import load, machine, weightless
from triptych.client import Client
from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.fastdeploy.places import places
from triptych.server.running import RunningServer
from triptych_export.config_edits import parameter

SCALE = 0.5
PAIRS = 5
"""Of one client's pictures, without and with a LoRA in turn, for each of `--pictures`."""
KEPT = 4
"""Sets of LoRAs that the server keeps while many are drawn with in turn."""


def main() -> int:
    options = _options()
    told = {"hardware": machine.hardware(), "gpu": machine.gpu()}
    print(*told.values(), sep="\n", flush=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        repository = Path(scratch) / "repository"
        shutil.copytree(
            options.graphs,
            repository,
            copy_function=weightless.link,
            ignore=shutil.ignore_patterns("loras"),
        )
        weightless.fill_repository(repository)
        of_a_set = write_loras(repository / "unet", options.many, options.rank)
        with serving(repository, Path(scratch), options, told) as (_, client):
            told.update(crowds(client, options))
        config = repository / "unet" / "config.pbtxt"
        config.write_text(config.read_text() + parameter("lora_bytes", str(KEPT * of_a_set)))
        told[f"{KEPT} sets, MiB"] = KEPT * of_a_set / 2**20
        with serving(repository, Path(scratch), options, told) as (server, client):
            told.update(many(client, server, options))
    for name, value in told.items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    if options.output:
        options.output.write_text(json.dumps(told, indent=2))
    return 0


@contextmanager
def serving(
    repository: Path, scratch: Path, options: argparse.Namespace, told: dict[str, Any]
) -> Iterator[tuple[RunningServer, Client]]:
    """A server of the repository, ready, and a client; `told` gets how long that took."""
    server = RunningServer(repository, scratch / "log")
    begun = time.monotonic()
    try:
        server.start()
        server.wait_ready(options.limit)
        told.setdefault("ready after, s", time.monotonic() - begun)
        with Client(server.grpc) as client:
            yield server, client
    finally:
        server.stop()
        lines = (scratch / "log").read_text(errors="replace").splitlines()
        print(*(line[:300] for line in lines if "runs on" in line or "rror" in line), sep="\n")


def write_loras(unet: Path, count: int, rank: int) -> int:
    """Write LoRAs `lora-0` and so on; the bytes that are kept for the UNet of one of them.

    On a GPU these are the file's, elsewhere those of the weights that it changes.
    """
    folder = unet / "loras"
    folder.mkdir()
    (path, *_) = (unet / "1" / name for name in ("model.cuda.onnx", "model.onnx"))
    graph = OnnxGraph(path if path.exists() else path.with_name("model.onnx"))
    layers = {layer: one for layer, one in places(graph)[2].items() if "_attn" in layer}
    for number in range(count):
        random, tensors = np.random.default_rng(number), {}
        for layer, place in layers.items():
            out, read = place.shape[:2]
            down = random.standard_normal((rank, read), np.float32) / np.sqrt(read)
            up = random.standard_normal((out, rank), np.float32) * 0.01
            tensors[f"lora_unet_{layer}.lora_down.weight"] = down.astype(np.float16)
            tensors[f"lora_unet_{layer}.lora_up.weight"] = up.astype(np.float16)
        save_file(tensors, folder / f"lora-{number}.safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{count} LoRAs of {len(layers)} layers, {size / count / 1e6:.1f} MB each", flush=True)
    if machine.gpu() != "no GPU":
        return size // count
    changed = {place.tensor for place in layers.values()}
    return sum(graph.values(name).nbytes for name in changed)


def drawing(client: Client, options: argparse.Namespace) -> Callable[[int | None], float]:
    """A function that draws with the LoRA of a number, or without, and gives the seconds."""
    numbers = iter(range(10**6))

    def draw(lora: int | None) -> float:
        begun = time.perf_counter()
        loras = {} if lora is None else {"loras": [{"name": f"lora-{lora}", "scale": SCALE}]}
        client.generate(
            "a red circle",
            timeout=options.limit,
            seed=next(numbers),
            num_inference_steps=options.steps,
            scheduler="ddim",
            **loras,
        )
        return time.perf_counter() - begun

    return draw


def crowds(client: Client, options: argparse.Namespace) -> dict[str, Any]:
    """One client's pictures, and those of many with as many LoRAs as `--sets` says."""
    found: dict[str, Any] = {}
    draw = drawing(client, options)
    draw(None)
    firsts = [draw(number) for number in range(min(3, options.many))]
    pairs = [(draw(None), draw(0)) for _ in range(PAIRS * options.pictures)]
    plain, later = map(median, zip(*pairs))
    found["without LoRAs, s"] = plain
    found["the first picture of the first LoRA, s more"] = firsts[0] - plain
    found["the first picture of another LoRA, s more"] = max(firsts[1:]) - plain
    found["later pictures, times without"] = later / plain
    apart = quantiles((with_lora / without for without, with_lora in pairs), n=4)
    found["the same, quartiles of pairs"] = ", ".join(f"{one:.3f}" for one in apart)
    print(json.dumps(found), flush=True)
    rates = {}
    for sets in (0, *options.sets):
        which = [
            None if not sets else at % sets for at in range(options.pictures * options.clients)
        ]
        load.closed(draw, which[: options.clients], options.clients)  # each is made once
        rates[sets] = load.closed(draw, which, options.clients).per_second
        print(f"{options.clients} clients, {sets} LoRAs: {rates[sets]:.3f}/s", flush=True)
        found[f"{options.clients} clients, {sets} LoRAs, pictures/s"] = rates[sets]
        if sets:
            found[f"{options.clients} clients, {sets} LoRAs, times none"] = rates[sets] / rates[0]
    return found


def many(client: Client, server: RunningServer, options: argparse.Namespace) -> dict[str, float]:
    """What more memory is used after all LoRAs in turn, and after all of them once more."""
    found: dict[str, float] = {}
    draw = drawing(client, options)
    draw(0)
    before = memory(server)
    for number in range(options.many):
        draw(number)
    once = memory(server)
    for number in range(options.many):
        draw(number)
    found[f"MiB more after {options.many} LoRAs in turn"] = once - before
    found["MiB more after the same again"] = memory(server) - once
    return found


def memory(server: RunningServer) -> float:
    """MiB of the GPUs that are used, else of the server's processes."""
    if machine.gpu() != "no GPU":
        return machine.used_memory()
    own, total = {server.process.pid}, 0
    for path in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda one: int(one.parent.name)):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in own or int(path.parent.name) in own:
            own.add(int(path.parent.name))
            total += int(fields[21]) * 4096
    return total / 2**20


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--graphs", type=Path, required=True)
    add("--output", type=Path)
    add("--scratch", type=Path)
    add("--clients", type=int, default=16)
    add("--steps", type=int, default=50)
    add("--pictures", type=int, default=3, help="of each client")
    add("--rank", type=int, default=32)
    add("--sets", type=int, nargs="+", default=[1, 4, 16])
    add("--many", type=int, default=40)
    add("--limit", type=float, default=300, help="seconds for the start, and for a picture")
    add("--tiny", action="store_true")
    options = parser.parse_args()
    if options.many < max(options.sets):
        parser.error(f"--many {options.many}: not enough for --sets up to {max(options.sets)}")
    if options.tiny:
        tiny = {"clients": 4, "steps": 4, "pictures": 1, "sets": [1, 4], "many": 6}
        vars(options).update(tiny)
    return options


if __name__ == "__main__":
    sys.exit(main())
