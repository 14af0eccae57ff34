"""Stand-ins for servers, as processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from triptych.server import supervise
from triptych.server.running import free_ports

ROOT = Path(__file__).resolve().parents[2]
QUEUE = 8


def shipped(model: str, parameter: str) -> int:
    """The number in a model's config.pbtxt."""
    text = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    return int(re.search(rf'"{parameter}" value {{ string_value: "(\d+)"', text)[1])


AS_SHIPPED = shipped("unet_loop", "max_queue"), shipped("sd_ensemble_stream", "max_streams")


class StandIns:
    """Stand-ins for servers, which can be ended and started again."""

    def __init__(self, count=2, queue=QUEUE, streams=QUEUE):
        self._most = str(queue), str(streams)
        self.ports = [free_ports(2) for _ in range(count)]
        self.processes = [self._start(ports) for ports in self.ports]

    def _start(self, ports):
        command = [sys.executable, "-m", "tests.fleet.stand_in", *map(str, ports), *self._most]
        return subprocess.Popen(command, preexec_fn=supervise.end_with_parent)

    def addresses(self):
        """Those of all: gRPC's and HTTP's."""
        return [tuple(f"127.0.0.1:{port}" for port in ports) for ports in self.ports]

    def start(self, number):
        self.processes[number] = self._start(self.ports[number])

    def end(self, number, signum):
        self.processes[number].send_signal(signum)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
