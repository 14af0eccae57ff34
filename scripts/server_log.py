"""Triton's log for people: its warnings and errors, what runs the networks, and where it listens.

Reads the log, writes what is left of it. Nothing is of what Triton says at every start and end and
means nothing: where there is no GPU, that it finds no CUDA.
"""

from __future__ import annotations

import re
import signal
import sys
import time

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
ABOUT_CUDA = re.compile(r"CUDA|CudaDriverHelper|NVML|DCGM")


def main() -> int:
    """0, at the log's end, which is the server's."""
    hidden = [ALWAYS] if runs_on.has_gpu() else [ALWAYS, ABOUT_CUDA]
    begun, ready, engines = time.monotonic(), False, []
    tell("server: starting")
    for line in sys.stdin:
        started, engine = STARTED.search(line), runs_on.find(line)
        if started:
            if not ready:
                tell(f"server: {runs_on.summary(engines)}")
                tell(f"server: ready after {time.monotonic() - begun:.1f} s")
            ready = True
            tell(f"server: {SERVICES[started[1]].format(started[2])}")
        elif engine and ready:  # of a model that was loaded anew
            tell(f"server: {runs_on.summary([engine])}")
        elif engine:
            engines.append(engine)
        elif not INFO.match(line) and not any(pattern.search(line) for pattern in hidden):
            tell(line.rstrip("\n"))
            if line.startswith(AGAIN):
                begun, ready, engines = time.monotonic(), False, []
    return 0


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # they are for the server
    sys.exit(main())
