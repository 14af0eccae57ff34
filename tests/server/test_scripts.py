"""`make run`, `make serve` and `make web`: what they do, and how they end at Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from PIL import Image

from tests.server.terminal import CHECKOUT, CODES, WEB, Terminal, command, nothing_left, quick
from triptych.client import Client

__all__ = ["quick"]


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
        r"server: starting\nserver: ready after [\d.]+ s, gRPC at \S+\n"
        r"server: text_encoder, unet, vae_decoder, vae_encoder run on CPU in single precision.*\n"
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
        ready = web.stdout.readline()
        assert ready.startswith("server: ready after ")
        with Client(ready.split()[-1]) as client:  # for the client beside the page
            client.check()
        assert web.stdout.readline().startswith("server: text_encoder, unet, ")
        url = web.stdout.readline().split()[-1]
        assert httpx.get(f"{url}healthz").status_code == 200
        asked = {"prompt": "x", "num_inference_steps": 1, "size": "64x64"}
        assert httpx.post(f"{url}v1/images/generations", json=asked, timeout=60).status_code == 200
        web.send_signal(signal.SIGTERM)
        assert (web.wait(60), web.stdout.read(), web.stderr.read()) == (0, "", "")


@pytest.mark.parametrize(("flag", "name"), [("--port", "page"), ("--grpc-port", "grpc")])
def test_web_tells_a_taken_port_before_anything_starts(flag, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, *WEB, f"{flag}={port}"]
        web = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (web.returncode, web.stdout) == (1, "")
    told = f"make web: port {port} ({name}) is in use on 127.0.0.1: stop what uses it, or pass"
    told += f" {flag}=N"
    assert web.stderr.startswith(told)
    assert web.stderr.count("\n") == 1


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", ["web", "serve"])
def test_ctrl_c_once_and_twice(name, times, tmp_path, quick):
    words, working = command(name, tmp_path)
    with nothing_left():
        terminal = Terminal(*words)
        terminal.read_until(working)
        for _ in range(times):
            terminal.ctrl_c()
            time.sleep(0.1)
        assert terminal.end() == CODES[name], terminal.shown
    (line,) = after_ctrl_c(terminal)
    assert re.match(r"(fastdeployserver|triptych gateway): ending, ", line)


def after_ctrl_c(terminal):
    """The lines that are shown then."""
    shown = terminal.shown.partition("^C")[2].replace("^C", "")
    return [line for line in shown.splitlines() if line]


def test_make_hands_flags_on_and_what_it_runs_ends_at_ctrl_c(tmp_path, quick):
    (_, _, _, _, *flags), working = command("serve", tmp_path)
    assume = (f"--assume-old={sys.prefix}/.set-up", f"VENV={sys.prefix}")
    with nothing_left():
        terminal = Terminal("/usr/bin/make", *assume, "serve", f"FLAGS={' '.join(flags)}")
        terminal.read_until(working)
        terminal.ctrl_c()
        assert terminal.end() in (0, -signal.SIGINT)  # make ends by the signal itself
    lines = [line for line in after_ctrl_c(terminal) if not line.startswith("make: ")]
    assert len(lines) == 1 and lines[0].startswith("fastdeployserver: ending, "), terminal.shown
