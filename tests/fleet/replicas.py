"""Several servers on loopback whose UNet sleeps, so that cores are not what bounds them."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.server import repositories
from tests.server.processes import Processes
from triptych.server.running import RunningServer

SLEEP = "time.sleep(0.08 * len(sample))"
"""More of the UNet: a call's time grows with its rows, as on a GPU that is full."""

PINGED = "--grpc-http2-max-ping-strikes=0"
"""With which a server stays connected to an Envoy that asks whether it lives."""


def repository(folder: Path, queue: int) -> Path:
    """The checkout's models with a UNet that sleeps; `queue` images are taken at a time."""
    models = repositories.with_unet(repositories.linked(folder, repositories.MODELS), SLEEP)
    config = repositories.own(models, "unet_loop") / "config.pbtxt"
    old, new = (f'max_queue" value {{ string_value: "{most}"' for most in (31, queue))
    repositories.change(config, old, new)
    return models


class Replicas:
    """Equal servers, `servers` of them running; a context manager."""

    def __init__(self, folder: Path, models: Path, count: int) -> None:
        self.all = [RunningServer(models, folder / f"server{n}.log", PINGED) for n in range(count)]

    def __enter__(self) -> Replicas:
        for server in self.all:
            server.start()
        for server in self.all:
            server.wait_ready(300)
        return self

    def __exit__(self, *_: object) -> None:
        stopping = [threading.Thread(target=server.stop) for server in self.all]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def addresses(self) -> list[tuple[str, str]]:
        """Those of all: gRPC's and HTTP's."""
        return [(server.grpc, server.http) for server in self.all]

    def kill(self, number: int) -> None:
        """Kill all processes of a server at once, as the end of its machine would."""
        server = self.all[number]
        Processes(server.process.pid).kill()
        server.process.wait(20)

    def start(self, number: int) -> None:
        """Start a server again at its old addresses, and return when it is ready."""
        self.all[number].start()
        self.all[number].wait_ready(300)
