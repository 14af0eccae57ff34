"""Triton's log for people: its warnings and errors, what runs the UNet, and where it listens.

Reads the log, writes what is left of it. Where there is no GPU, nothing of what Triton says about
CUDA is: it looks for one at every start.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time

SERVICES = {
    "GRPCInferenceService": "gRPC at {}",
    "HTTPService": "HTTP at http://{}/",
    "Metrics Service": "metrics at http://{}/metrics",
}
STARTED = re.compile(rf'"Started ({"|".join(SERVICES)}) at ([^"]+)"')
RUNS_ON = re.compile(r"[\w.]+: runs on [^\"\n]+")
INFO = re.compile(r"I\d{4} |[+|]|$")  # and the tables that follow one
ABOUT_CUDA = re.compile(r"CUDA|CudaDriverHelper|NVML|DCGM")
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux's, and that of Linux inside Windows


def main() -> int:
    """0, at the log's end, which is the server's."""
    begun, ready, has_gpu = time.monotonic(), False, any(map(os.path.exists, DRIVERS))
    for line in sys.stdin:
        started, engine = STARTED.search(line), RUNS_ON.search(line)
        if started:
            if not ready:
                print(f"server: ready after {time.monotonic() - begun:.1f} s", flush=True)
            ready = True
            print(f"server: {SERVICES[started[1]].format(started[2])}", flush=True)
        elif engine:
            print(f"server: {engine.group()}", flush=True)
        elif not INFO.match(line) and (has_gpu or not ABOUT_CUDA.search(line)):
            print(line, end="", flush=True)
    return 0


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # they are for the server
    sys.exit(main())
