"""Triton's log for people: its warnings and errors, what runs the networks, and where it listens.

Reads the log, writes what is left of it. Nothing is of what Triton says at every start and end and
means nothing: where there is no GPU, that it finds no CUDA.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator

from triptych.server import runs_on

SERVICES = {
    "GRPCInferenceService": "gRPC at {}",
    "HTTPService": "HTTP at http://{}/",
    "Metrics Service": "metrics at http://{}/metrics",
}
STARTED = re.compile(rf'"Started ({"|".join(SERVICES)}) at ([^"]+)"')
AGAIN = "fastdeployserver: starting it again"
INFO = re.compile(r"I\d{4} |[+|]|$")  # and the tables that follow one
ALWAYS = re.compile(r"ignore version directory 'loras'|^Signal \(\d+\) received\.$")
ABOUT_CUDA = re.compile(r"CUDA|CudaDriverHelper|NVML|DCGM|no pinned memory pool")


class ForPeople:
    """Reads the log's lines in their order, and says what of each is for people."""

    def __init__(self) -> None:
        self._hidden = [ALWAYS] if runs_on.has_gpu() else [ALWAYS, ABOUT_CUDA]
        self._begin()

    def _begin(self) -> None:
        self._begun, self._ready, self._engines = time.monotonic(), False, []

    def read(self, line: str) -> Iterator[str]:
        started, engine = STARTED.search(line), runs_on.find(line)
        if started:
            if not self._ready:
                yield from self._has_started()
            yield f"server: {SERVICES[started[1]].format(started[2])}"
        elif engine and self._ready:  # of a model that was loaded anew
            yield f"server: {runs_on.summary([engine])}"
        elif engine:
            self._engines.append(engine)
        elif not INFO.match(line) and not any(pattern.search(line) for pattern in self._hidden):
            yield line.rstrip("\n")
            if line.startswith(AGAIN):
                self._begin()

    def _has_started(self) -> Iterator[str]:
        self._ready = True
        engines = runs_on.summary(self._engines)
        yield f"server: {engines}"
        if runs_on.has_gpu() and "built without it" in engines:
            yield "server: this machine has a GPU, which draws with GPU=1"
        yield f"server: ready after {time.monotonic() - self._begun:.1f} s"


def main() -> int:
    """0, at the log's end, which is the server's."""
    people = ForPeople()
    tell("server: starting")
    for line in sys.stdin:
        for told in people.read(line):
            tell(told)
    return 0


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # they are for the server
    sys.exit(main())
