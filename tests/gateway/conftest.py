"""Gateways on free ports, in front of a stand-in for Triton."""

from __future__ import annotations

import contextlib

import pytest

from tests.gateway.fake_triton import FakeTriton
from tests.gateway.running import Gateway


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
