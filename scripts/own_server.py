"""A server of its own for a script, with the checkout's models."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from triptych.server import Unfit, runs_on
from triptych.server.running import RunningServer

CHECKOUT = Path(__file__).resolve().parents[1]


STILL_LOADING = 30
"""Seconds between lines that say so: TensorRT builds its engines for minutes."""


def with_server(work: Callable[[RunningServer], int], grpc_port: int = 0) -> int:
    """What `work` returns while the server runs, 1 if the server cannot start.

    Its gRPC is at `grpc_port`, at a free port where that is 0. Its log stays if it cannot start.
    """
    folder = Path(tempfile.mkdtemp(prefix="triptych-"))
    log = folder / "server.log"
    server = RunningServer(CHECKOUT / "model_repository", log, grpc_port=grpc_port)
    begun = time.monotonic()
    print("server: starting", flush=True)
    server.start()
    try:
        while not server.comes_ready(STILL_LOADING):
            print(f"server: still loading after {time.monotonic() - begun:.0f} s", flush=True)
        seconds = time.monotonic() - begun
        print(f"server: ready after {seconds:.1f} s, gRPC at {server.grpc}", flush=True)
        engines = server.engines()
        print(f"server: {engines}", flush=True)
        if runs_on.has_gpu() and "built without it" in engines:
            print("server: this machine has a GPU, which draws with GPU=1", flush=True)
        return work(server)
    except Unfit as reason:
        print(reason, file=sys.stderr)
        folder = None
        return 1
    finally:
        server.stop()
        if folder is not None:
            shutil.rmtree(folder)
