"""SIGTERM while requests run, and files that cannot be written."""

import os
import resource
import shutil
import signal
import subprocess
import threading
import time

import pytest
from tritonclient.utils import InferenceServerException

from tests.server import repositories
from tests.server.calls import Calls, post, request, texts
from tests.server.processes import Processes
from triptych.server.running import RunningServer

SLOW = {"height": 64, "width": 64, "num_inference_steps": 150, "scheduler": "ddim"}


@pytest.fixture
def models(repository, tmp_path):
    """A repository whose UNet takes 10 ms a call, which makes `SLOW` 2 s."""
    return repositories.with_unet(repositories.linked(tmp_path / "models", repository))


def test_what_is_in_work_at_sigterm_is_finished_and_new_requests_are_refused(models, tmp_path):
    with RunningServer(models, tmp_path / "server.log") as server:
        calls = Calls(server.grpc)
        started = [
            calls.start("sd_ensemble", {"INPUT_0": texts(request(seed=seed, **SLOW))})
            for seed in range(4)
        ]
        over_http = []
        body = {"INPUT_0": request(seed=9, **SLOW).decode()}
        url = f"{server.http}/v2/models/sd_ensemble/generate"
        thread = threading.Thread(target=lambda: over_http.append(post(url, body)))
        thread.start()
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        late = calls.start("sd_ensemble", {"INPUT_0": texts(request(**SLOW))}).wait(5)
        assert late.error.status() == "StatusCode.UNAVAILABLE"
        assert late.error.message().endswith("the server is ending and takes no more requests")
        for one in started:
            assert one.wait(30).error is None, one.error
        thread.join(30)
        assert [status for status, _ in over_http] == [200]
        assert server.process.wait(30) == 0
        calls.close()


def test_it_serves_where_it_can_write_nothing(models, tmp_path):
    """A repository that is mounted read-only where that is allowed, as root writes anywhere.

    Then, as on a full disk, no process of the server can write a byte to any file.
    """
    whole = tmp_path / "whole"
    shutil.copytree(models, whole, ignore=shutil.ignore_patterns("__pycache__"))
    mount = subprocess.run(
        ["mount", "--bind", "-o", "ro", whole, whole], capture_output=True, check=False
    )
    if mount.returncode:
        if os.geteuid() == 0:
            pytest.skip("no mounts here, and root writes anywhere")
        subprocess.run(["chmod", "-R", "a-w", whole], check=True)
    else:
        subprocess.run(["mount", "-o", "remount,bind,ro", whole], check=True)
    try:
        with pytest.raises(OSError):
            (whole / "unet" / "file").touch()
        with RunningServer(whole, tmp_path / "server.log") as server:
            calls = Calls(server.grpc)
            before = calls.pictures(request(seed=1, **SLOW))
            for pid in Processes(server.process.pid).all().values():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
            assert calls.pictures(request(seed=1, **SLOW)) == before
            with pytest.raises(InferenceServerException, match="allowed: "):
                calls.pictures(request(seed=-1))
            calls.close()
    finally:
        if not mount.returncode:
            subprocess.run(["umount", whole], check=True)
        else:
            subprocess.run(["chmod", "-R", "u+w", whole], check=True)
