"""One server for all of these tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.gateway.running import Gateway
from tests.server.again import pytest_runtest_protocol, pytest_terminal_summary  # noqa: F401
from tests.server.calls import Calls
from triptych.server.running import RunningServer

CHECKOUT = Path(__file__).resolve().parents[2]


class Scheduling(LoadScopeScheduling):
    """Workers share the tests of other folders, then one of them runs all of this folder.

    Nothing runs beside these: they measure times, and a server takes all cores.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "tests/server" if nodeid.startswith("tests/server/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    config.option.loadscopereorder = False  # the largest scope is not the first
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The model repository under test: the checkout's, or the one that the environment names."""
    return Path(os.environ.get("TRIPTYCH_TEST_REPOSITORY", CHECKOUT / "model_repository"))


@pytest.fixture(scope="session")
def server(repository, tmp_path_factory, request):
    """A running server with `http`, `grpc` and `metrics`, each "host:port"."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with RunningServer(repository, log) as running:
        request.config.stash[_LOG] = log
        yield running


@pytest.fixture(autouse=True)
def whole(request):
    """The server is there again if it died in the test before."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server").wait_ready()


@pytest.fixture
def calls(server):
    made = Calls(server.grpc)
    yield made
    made.close()


@pytest.fixture(scope="module")
def gateway(server):
    with Gateway(server.grpc) as gateway:
        yield gateway


_LOG = pytest.StashKey[Path]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of the server's log."""
    report = (yield).get_result()
    log = item.config.stash.get(_LOG, None)
    if report.failed and log is not None and "server" in item.fixturenames:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        report.sections.append((f"end of {log}", end))
