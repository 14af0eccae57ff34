"""What `make run` and `make web` run: a server of their own, for one picture and for the page."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[2]


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
    assert re.match(r"server: ready after [\d.]+ s\nout\.png: \d+x\d+, seed \d+, ", run.stdout)
    assert Image.open(tmp_path / "out.png").format == "PNG"


def test_web_serves_the_page_until_it_is_told_to_end():
    command = [sys.executable, CHECKOUT / "scripts" / "web.py", "--port", "0"]
    env = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as web:
        assert web.stdout.readline().startswith("server: ready after ")
        url = web.stdout.readline().split()[-1]
        assert httpx.get(f"{url}healthz").status_code == 200
        asked = {"prompt": "x", "num_inference_steps": 1, "size": "64x64"}
        assert httpx.post(f"{url}v1/images/generations", json=asked, timeout=60).status_code == 200
        web.send_signal(signal.SIGTERM)
        assert web.wait(60) == 0
