"""How fast the server draws when OpenVINO runs the UNet and the VAE on this processor.

    python benchmarks/cpu_openvino.py [--rounds N] [--steps N] [--precision fp32]

One table, at 1 and 8 clients: the server with OpenVINO, the same on ONNX Runtime's own provider,
and optimum-intel's OpenVINO pipeline with the same weights, precision and threads, where
.venv-peers is installed. What is compared alternates, round by round. Prompts are all different.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import load, machine
from benchmarks.cpu import Served
from benchmarks.different import Requests
from benchmarks.table import Table
from benchmarks.worker import Worker
from triptych.model_files import ModelFiles
from triptych.server.running import RunningServer
from triptych_export import cli

OPENVINO, PLAIN, OPTIMUM = "served, OpenVINO", "served, ONNX Runtime", "optimum-intel"
PEERS = CHECKOUT / ".venv-peers" / "bin" / "python"
ENGINES = {"bf16": ("openvino-bf16", "bf16"), "fp32": ("openvino", "f32")}
"""For each precision, the export's name of the engine and OpenVINO's of the precision."""
CLIENTS = (1, 8)
LATENCY_TARGET = 1.05


def check_same(*drawn: bytes) -> None:
    """RuntimeError unless two OUTPUT_0 are the same picture, to 30 dB."""
    first, second = (Image.open(io.BytesIO(base64.b64decode(one))) for one in drawn)
    error = np.square(np.subtract(first, second, dtype=float)).mean()
    if error > 255**2 / 1e3:
        raise RuntimeError(f"{OPTIMUM} draws another picture: mean square error {error:.0f}")


def conclusions(table: Table, has_peer: bool) -> list[str]:
    """The figures that there are targets for, each with its target."""
    names = {clients: f"{clients} client{'s' if clients > 1 else ''}" for clients in CLIENTS}
    one, many = names.values()
    plain = table.latency(f"{PLAIN}, {one}") / table.latency(f"{OPENVINO}, {one}")
    lines = [f"ONNX Runtime / OpenVINO, latency, both served: {plain:.3f}"]
    if has_peer:
        latency = table.latency(f"{OPENVINO}, {one}") / table.latency(f"{OPTIMUM}, {one}")
        rate = table.rate(f"{OPENVINO}, {many}") / table.rate(f"{OPTIMUM}, {many}")
        lines += [
            f"served / {OPTIMUM}, latency: {latency:.3f} (target: <= {LATENCY_TARGET})",
            f"served / {OPTIMUM}, pictures/s at {many}: {rate:.3f} (target: > 1)",
        ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=CHECKOUT / "model_repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each picture, instead of the model's")
    parser.add_argument("--precision", choices=ENGINES, default="bf16", help="of OpenVINO")
    options = parser.parse_args()
    engine, hint = ENGINES[options.precision]
    usual = ModelFiles.load(options.repository / "tokenizer" / "1").defaults()
    if options.steps:
        usual = replace(usual, num_inference_steps=options.steps)
    requests, table, before = Requests(usual), Table(), machine.processor_seconds()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print(machine.hardware())
        print(machine.versions("onnxruntime", "onnxruntime-ep-openvino", "numpy"))
        draw = {}
        for name, asked in ((OPENVINO, engine), (PLAIN, "onnxruntime")):
            repository = shutil.copytree(options.repository, folder / asked)
            if cli.main(["--output", str(repository), "--cpu-accelerator", asked]):
                return 1
            running = RunningServer(repository, folder / f"{asked}.log")
            draw[name] = Served(stack.enter_context(running)).draw
            print(f"{name}: {running.engines()}")
        if PEERS.exists():
            arguments = "optimum_pipeline.py", options.repository.resolve(), hint
            peer = stack.enter_context(Worker(PEERS, *arguments))
            draw[OPTIMUM] = lambda one: peer.call("picture", one)
            print(peer.call("versions"))
            (request,) = requests.take(1)
            check_same(draw[OPENVINO](request), peer.call("drawn", request).encode())
        else:
            print(f"no {OPTIMUM}: {PEERS} is not there, see make bench-openvino")
        for one in draw.values():
            load.closed(one, requests.take(2), 1)
        for number in range(options.rounds):
            for clients in (1, 1, 1, *CLIENTS):
                for name, one in draw.items():
                    what = f"{name}, {clients} client{'s' if clients > 1 else ''}"
                    table.add(what, load.closed(one, requests.take(clients), clients))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(f"{usual.height}x{usual.width}, {usual.num_inference_steps} steps")
    print(table)
    print(*conclusions(table, OPTIMUM in draw), sep="\n")
    others = machine.others(before)
    print(f"other processes took {others:.0%} of the cores", ": NOT quiet" if others > 0.03 else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
