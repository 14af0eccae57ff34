import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from http_fake import serving

from scripts import own_server
from triptych.server import Unfit
from triptych.server.running import RunningServer, free_ports


@pytest.mark.parametrize(
    ("health", "metrics", "ready"),
    [(None, None, False), (400, 200, False), (200, None, False), (200, 200, True)],
)
def test_a_server_is_ready_when_its_models_and_its_metrics_are(tmp_path, health, metrics, ready):
    running = RunningServer(tmp_path, tmp_path / "log")
    with serving({"/v2/health/ready": health}) as first, serving({"/metrics": metrics}) as second:
        nobody = f"127.0.0.1:{free_ports(1)[0]}"
        running.http = first if health else nobody
        running.metrics = second if metrics else nobody
        assert running.is_ready() == ready


def test_a_server_may_load_for_longer_than_one_waits(tmp_path):
    running = RunningServer(tmp_path, tmp_path / "log")
    running._command = [sys.executable, "-c", "import time; time.sleep(60)"]
    running.start()
    assert not running.comes_ready(0.2)
    assert running.process.poll() is None
    with pytest.raises(Unfit, match="was not ready after 0 s"):
        running.wait_ready(0.2)
    assert running.process.poll() is not None


class Loading(RunningServer):
    """Ready when it was asked for the third time; or it ends, where `ends`."""

    asked, ends = 0, False

    def start(self):
        self._command = [sys.executable, "-c", "print('the log'); import time; time.sleep(60)"]
        if self.ends:
            self._command = [sys.executable, "-c", "import sys; sys.exit('why')"]
        super().start()

    def comes_ready(self, seconds):
        self.asked += 1
        return super().comes_ready(10) if self.ends else self.asked == 3


def test_a_script_says_that_its_server_still_loads(monkeypatch, capsys):
    monkeypatch.setattr(own_server, "RunningServer", Loading)
    logs = []
    assert own_server.with_server(lambda server: logs.append(server.log) or 0) == 0
    first, *more = capsys.readouterr().out.splitlines()
    assert first == "server: starting"
    assert [line.split(" after")[0] for line in more[:2]] == ["server: still loading"] * 2
    assert not logs[0].exists()


def test_the_log_of_a_server_that_cannot_start_stays_and_what_it_says_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(own_server, "RunningServer", Loading)
    monkeypatch.setattr(Loading, "ends", True)
    assert own_server.with_server(lambda server: 0) == 1
    shown = capsys.readouterr()
    assert shown.out == "server: starting\nwhy\n"
    log = Path(shown.err.removeprefix("server: ended with code 1; its whole log: ").strip())
    assert log.read_text() == "why\n"
    shutil.rmtree(log.parent)


def test_work_that_does_not_see_its_server_end_is_told_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(own_server, "RunningServer", Loading)
    over = threading.Event()

    def work(server):
        server.process.kill()
        assert over.wait(10)
        shutil.rmtree(server.log.parent)
        return 0

    assert own_server.with_server(work, lost=over.set) == 1
    assert "server: ended with code -9; its whole log: " in capsys.readouterr().err


INTERRUPTED_FORK = """
import os, signal, sys
from pathlib import Path
from triptych.server.running import RunningServer
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
server = RunningServer(Path(), Path("/dev/null"))
try:
    server.start()
except KeyboardInterrupt:
    server.stop()
    sys.exit(7)
"""


def test_an_interrupt_while_the_server_is_started_is_not_lost():
    run = subprocess.run([sys.executable, "-c", INTERRUPTED_FORK], timeout=60, check=False)
    assert run.returncode == 7
