"""`make run` and `make web`, and a `make web` whose Triton is killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from PIL import Image

from tests.gateway.running import wait_for
from tests.server.processes import Processes
from tests.server.terminal import CHECKOUT, WEB, nothing_left
from triptych.client import Client


def test_run_draws_a_picture(tmp_path):
    command = [sys.executable, CHECKOUT / "scripts" / "run.py", "a red circle", "-o", "out.png"]
    run = subprocess.run(
        [*command, "--steps", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert re.match(
        r"server: starting\n"
        r"server: text_encoder, unet, vae_decoder, vae_encoder run on CPU in single precision.*\n"
        r"server: ready after [\d.]+ s\nserver: gRPC at \S+\n"
        r"out\.png: \d+x\d+, seed \d+, ",
        run.stdout,
    )
    assert Image.open(tmp_path / "out.png").format == "PNG"


def test_web_serves_the_page_until_it_is_told_to_end():
    command = [sys.executable, *WEB]
    env = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, **pipes) as web:
        assert web.stdout.readline() == "server: starting\n"
        assert web.stdout.readline().startswith("server: text_encoder, unet, ")
        assert web.stdout.readline().startswith("server: ready after ")
        with Client(web.stdout.readline().split()[-1]) as client:  # for the client beside the page
            client.check()
        url = web.stdout.readline().split()[-1]
        assert httpx.get(f"{url}healthz").status_code == 200
        asked = {"prompt": "x", "num_inference_steps": 1, "size": "64x64"}
        assert httpx.post(f"{url}v1/images/generations", json=asked, timeout=60).status_code == 200
        web.send_signal(signal.SIGTERM)
        assert (web.wait(60), web.stdout.read(), web.stderr.read()) == (0, "", "")


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
