"""Gateways on free ports, in front of a stand-in for Triton, or of the real one."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import uvicorn

from tests.gateway.fake_triton import FakeTriton
from triptych.gateway.app import create_app


class Gateway:
    """A running gateway; `url` is its address."""

    def __init__(self, triton_url: str, **options) -> None:
        self.app = create_app(triton_url, **options)
        config = uvicorn.Config(self.app, port=0, log_level="warning", timeout_graceful_shutdown=2)
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


@pytest.fixture(scope="session")
def _triton():
    with FakeTriton() as fake:
        yield fake


@pytest.fixture(scope="session")
def _gateway(_triton):
    with Gateway(_triton.url) as gateway:
        yield gateway


@pytest.fixture
def triton(_triton):
    """The stand-in, as it does by itself."""
    yield _triton
    _triton.forget()


@pytest.fixture
def gateway(_gateway, triton):
    """A gateway in front of it, without options."""
    return _gateway


@pytest.fixture
def start(triton):
    """`start(**options)`: a gateway of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Gateway(triton.url, **options))
        triton.hold.set()


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
