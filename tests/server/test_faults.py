"""Processes that die while requests run: who is told what, and how soon all is well again."""

import re
import time
from pathlib import Path

import pytest

from tests.server.faults import CLIENTS, DIED, kill
from triptych.server.running import RunningServer

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def own(repository, tmp_path_factory):
    """A server that is killed; `started` is how many seconds its start took."""
    log = tmp_path_factory.mktemp("faults") / "server.log"
    begun = time.monotonic()
    with RunningServer(repository, log) as server:
        server.started = time.monotonic() - begun
        yield server


def token(server):
    """By which the shared memory of the server's present run is known."""
    opened = (path.resolve() for path in Path(f"/proc/{server.process.pid}/fd").iterdir())
    (lock,) = (path for path in opened if path.parent == SHARED_MEMORY)
    return lock.name.split("_")[1]


@pytest.mark.parametrize("stage", ["unet", "unet_loop"])
def test_a_killed_process_is_named_and_requests_succeed_again(own, stage):
    before = token(own)
    seconds, errors = kill(own, stage)
    assert not list(SHARED_MEMORY.glob(f"triptych_{before}*"))
    assert len(errors) == CLIENTS
    for error in errors:
        # Nobody is left who could answer what unet_loop held: the connection ends.
        named = DIED.format(stage) if stage == "unet" else f"{stage}_0_0' is not healthy|reset by"
        assert re.search(named, error.message()), error.message()
    assert f"the process of {stage} (SIGKILL) died" in own.log.read_text()
    # 5 s here, to which a machine with other work adds as much as it added to the start.
    assert seconds < max(15, 2 * own.started + 5)
