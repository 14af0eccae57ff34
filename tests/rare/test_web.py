"""`make web` whose Triton is killed: it says so, and ends with a server that cannot start again."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.gateway.running import wait_for
from tests.server.processes import SHARED_MEMORY, Processes
from tests.server.terminal import CHECKOUT, nothing_left


def checkout(folder):
    """One with models of its own, which are links."""
    shutil.copytree(CHECKOUT / "scripts", folder / "scripts")
    (folder / "triptych").symlink_to(CHECKOUT / "triptych")
    models = CHECKOUT / "model_repository"
    shutil.copytree(models, folder / "model_repository", copy_function=os.symlink)
    return folder


def test_web_says_what_becomes_of_its_server_and_ends_with_it(tmp_path):
    folder = checkout(tmp_path)
    command = [sys.executable, folder / "scripts" / "web.py", "--port=0", "--grpc-port=0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with nothing_left(), subprocess.Popen(command, **pipes) as web:
        triton = Processes(web.pid)

        def told(line):
            while not (read := web.stdout.readline()).startswith(line):
                assert read, web.stderr.read()
            return read

        health = told("triptych gateway: the page and the APIs").split()[-1] + "healthz"
        os.kill(triton.all()["triton"], signal.SIGKILL)
        told("fastdeployserver: the server died (SIGKILL)")
        told("fastdeployserver: starting it again")
        told("server: ready after ")
        wait_for(lambda: httpx.get(health).status_code == 200)

        (folder / "model_repository" / "unet" / "1" / "model.onnx").unlink()
        os.kill(triton.all()["triton"], signal.SIGKILL)
        assert "no such file" in told("E")
        assert web.wait(60) == 1
        shown = web.stderr.read()
    log = Path(shown.removeprefix("server: ended with code 1; its whole log: ").strip())
    assert "failed to load 'unet'" in log.read_text()
    shutil.rmtree(log.parent)
    assert not [path for path in SHARED_MEMORY.glob("triptych_*") if str(web.pid) in path.name]
