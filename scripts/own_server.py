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


def with_server(work: Callable[[RunningServer], int]) -> int:
    """What `work` returns while the server runs, 1 if the server cannot start."""
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(CHECKOUT / "model_repository", Path(folder) / "server.log")
        begun = time.monotonic()
        try:
            with server:
                print(f"server: ready after {time.monotonic() - begun:.1f} s", flush=True)
                return work(server)
        except Unfit as reason:
            print(reason, file=sys.stderr)
            return 1
