"""Three servers, Envoy in front of them, and the gateway in front of Envoy."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.fleet.envoy import Envoy
from tests.fleet.replicas import Replicas, repository
from tests.fleet.stand_ins import StandIns
from tests.gateway.running import wait_for
from triptych.server import supervise

QUEUE = 16


@pytest.fixture(scope="session")
def replicas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    with Replicas(folder, repository(folder / "models", QUEUE), 3) as running:
        yield running


@pytest.fixture
def stand_ins():
    made = StandIns()
    yield made
    made.close()


@pytest.fixture
def fleet(replicas, tmp_path):
    """`with fleet(count) as url`: the gateway's address, in front of so many of the replicas."""

    @contextmanager
    def running(count, *flags):
        with Envoy(tmp_path, replicas.addresses()[:count]) as envoy, gateway(
            envoy.grpc, *flags
        ) as url:
            wait_for(lambda: envoy.stats()["membership_healthy"] == count)
            yield url

    return running


@contextmanager
def gateway(server, *flags, env=None):
    """The gateway as a process of its own, with more variables in `env`; its address."""
    command = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0", "--url", server]
    process = subprocess.Popen(
        [*command, "--max-pictures", "100", *flags],
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=supervise.end_with_parent,
    )
    try:
        yield process.stdout.readline().split()[-1].rstrip("/")
    finally:
        process.terminate()
        assert process.wait(60) == 0
