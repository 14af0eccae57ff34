"""A server of its own for a script, with the checkout's models."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from triptych.server import Unfit
from triptych.server.running import RunningServer

CHECKOUT = Path(__file__).resolve().parents[1]


def with_server(work: Callable[[RunningServer], int], grpc_port: int = 0) -> int:
    """What `work` returns while the server runs, 1 if the server cannot start.

    Its gRPC is at `grpc_port`, at a free port where that is 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        server = RunningServer(CHECKOUT / "model_repository", log, grpc_port=grpc_port)
        begun = time.monotonic()
        print("server: starting", flush=True)
        try:
            with server:
                seconds = time.monotonic() - begun
                print(f"server: ready after {seconds:.1f} s, gRPC at {server.grpc}", flush=True)
                print(f"server: {server.engines()}", flush=True)
                return work(server)
        except Unfit as reason:
            print(reason, file=sys.stderr)
            return 1
