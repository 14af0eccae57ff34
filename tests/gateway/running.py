"""A gateway for a test."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time

import uvicorn

from triptych.gateway.app import create_app


class Gateway:
    """A running gateway, on a free port if none is given; `url` is its address."""

    def __init__(self, triton_url: str, port: int = 0, **options) -> None:
        self.app = create_app(triton_url, **options)
        config = uvicorn.Config(
            self.app, port=port, log_level="warning", timeout_graceful_shutdown=2
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Gateway:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@contextlib.contextmanager
def started(command, stdout=subprocess.PIPE, text=True, **options):
    """A process, which does not outlive the `with` block, however that ends."""
    with subprocess.Popen(command, stdout=stdout, text=text, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition, seconds=20):
    """Return once `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
