"""Whether one served loop keeps many GPUs' UNets at work: they sleep, each a process of its own.

    python benchmarks/instances.py [--instances 16] [--images 16]

A call takes `--milliseconds`, whatever its rows. Latents and text embeddings are those of Stable
Diffusion 1.5 at 512x512, with guidance. Two clients for each instance draw `--images` images each,
again and again, so that no call lacks images while a client asks anew; counted is a time in the
middle of that. The share is the time that the instances slept of the time that they could have: 1
is a loop that costs nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import tritonclient.grpc as grpcclient

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import machine
from benchmarks.load import calls_and_rows, percentile
from benchmarks.loop import STEPS, request, write_loop
from triptych.server.running import RunningServer
from triptych.settings import Settings
from triptych_export.config_edits import parameter

SLEEPING = """\
import sys
import time

sys.path.insert(0, {checkout!r})

from triptych.stages import network


class Sleeping:
    provider = "a clock"

    def __init__(self, *_):
        pass

    def run(self, calls, _):
        time.sleep({seconds} * len(calls))
        return [{{"out_sample": call["sample"]}} for call in calls]


network.Network = Sleeping

from backends.fastdeploy.model import TritonPythonModel
"""
"""The backend fastdeploy, all of it but the network."""

WARM, WINDOW = 5.0, 5.0
"""Seconds before the first count, and between two."""

CLIENTS = 2
"""For each instance."""


def write_repository(folder: Path, options: argparse.Namespace) -> Path:
    """unet_loop, and a unet of as many processes that sleep."""
    write_loop(folder)
    config = folder / "unet_loop" / "config.pbtxt"
    images = CLIENTS * options.instances * options.images
    old, new = (f'max_queue" value {{ string_value: "{most}"' for most in (31, images))
    config.write_text(config.read_text().replace(old, new))
    served = (CHECKOUT / "model_repository" / "unet" / "config.pbtxt").read_text()
    config = served.replace('backend: "fastdeploy"', 'backend: "python"')
    config += f"instance_group [ {{ count: {options.instances} kind: KIND_CPU }} ]\n"
    (folder / "unet" / "1").mkdir(parents=True)
    (folder / "unet" / "config.pbtxt").write_text(config + parameter("channel", "true"))
    code = SLEEPING.format(checkout=str(CHECKOUT), seconds=options.milliseconds / 1e3)
    (folder / "unet" / "1" / "model.py").write_text(code)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=16)
    parser.add_argument("--images", type=int, default=16, help="in a call")
    parser.add_argument("--milliseconds", type=float, default=70)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    settings = Settings("a prompt", "", STEPS, 7.5, 1, 512, 512, "ddim", "png")
    print(machine.hardware())
    print(machine.versions("numpy"))
    enough = threading.Event()
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_repository(Path(scratch) / "repository", options)
        with RunningServer(folder, Path(scratch) / "log") as running:

            def draw() -> None:
                with grpcclient.InferenceServerClient(running.grpc) as client:
                    while not enough.is_set():
                        request(options.images, settings, client)

            many = CLIENTS * options.instances
            clients = [threading.Thread(target=draw) for _ in range(many)]
            for client in clients:
                client.start()
            time.sleep(WARM)
            counts = [(time.monotonic(), *calls_and_rows(running.metrics))]
            for _ in range(options.rounds):
                time.sleep(WINDOW)
                counts.append((time.monotonic(), *calls_and_rows(running.metrics)))
            enough.set()
            for client in clients:
                client.join()
    shares, rows = [], []
    for (begun, calls, of_rows), (ended, more_calls, more_rows) in zip(counts, counts[1:]):
        slept = (more_calls - calls) * options.milliseconds / 1e3
        shares.append(slept / options.instances / (ended - begun))
        rows.append((more_rows - of_rows) / (more_calls - calls))
    low, middle, high = (percentile(shares, percent) for percent in (25, 50, 75))
    print(
        f"{options.instances} instances, {options.milliseconds:g} ms a call, "
        f"{percentile(rows, 50):.1f} rows: busy {middle:.3f} ({low:.3f} to {high:.3f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
