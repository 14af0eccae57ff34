"""A server of its own for a script, with the checkout's models."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from scripts import server_log
from triptych.server import Unfit
from triptych.server.running import RunningServer

CHECKOUT = Path(__file__).resolve().parents[1]


STILL_LOADING = 30
"""Seconds between lines that say so: TensorRT builds its engines for minutes."""

LOOK = 0.25
"""Seconds between two looks at the log and at the server."""

OTHER_PORTS = ("server: HTTP", "server: metrics")
"""How lines begin about ports that nobody was told to use: they are any free ones."""


def with_server(
    work: Callable[[RunningServer], int],
    grpc_port: int = 0,
    lost: Callable[[], None] = lambda: None,
) -> int:
    """What `work` returns while the server runs, 1 if the server cannot start or ends before it.

    Its gRPC is at `grpc_port`, at a free port where that is 0. What its log says to people is
    passed on; the log stays if the server ended by itself. `lost` is then called, in a thread, so
    that `work` ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="triptych-"))
    log = folder / "server.log"
    log.touch()
    server = RunningServer(CHECKOUT / "model_repository", log, grpc_port=grpc_port)
    watch = _Watch(server, lost)
    begun = time.monotonic()
    print("server: starting", flush=True)
    try:
        server.start()
        while not server.comes_ready(STILL_LOADING):
            print(f"server: still loading after {time.monotonic() - begun:.0f} s", flush=True)
        watch.start()
        code = work(server)
        return 1 if watch.has_ended else code
    except Unfit:
        watch.look()
        return 1
    finally:
        watch.stop()
        try:
            server.stop()
        finally:  # of an interrupt too
            if not watch.has_ended:
                shutil.rmtree(folder)


class _Watch(threading.Thread):
    """Passes on what the log says to people, and what becomes of the server."""

    def __init__(self, server: RunningServer, lost: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.has_ended = False
        self._server, self._lost = server, lost
        self._people = server_log.ForPeople()
        self._log = server.log.open(errors="replace")
        self._begun_line = ""
        self._over = threading.Event()

    def start(self) -> None:
        self.look()  # so that the server's lines come before those of what uses it
        super().start()

    def run(self) -> None:
        while not self._over.wait(LOOK):
            self.look()
            if self.has_ended:
                self._lost()
                return

    def look(self) -> None:
        """Pass on what is new, until the server has ended."""
        if self.has_ended:
            return
        code = self._server.process.poll()  # before the log is read to its end
        *lines, self._begun_line = (self._begun_line + self._log.read()).split("\n")
        for line in lines:
            for told in self._people.read(line):
                if not told.startswith(OTHER_PORTS):
                    print(told, flush=True)
        if code is not None:
            self.has_ended = True
            told = f"server: ended with code {code}; its whole log: {self._server.log}"
            print(told, file=sys.stderr)

    def stop(self) -> None:
        """Pass nothing on from here on."""
        self._over.set()
        if self.is_alive():
            self.join()
        self._log.close()
