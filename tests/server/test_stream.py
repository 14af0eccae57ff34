"""sd_ensemble_stream: the picture on its way, over gRPC and HTTP, and what leaving it does."""

import base64
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.server.calls import SMALL, metrics, post, request, tensors, texts
from tests.server.processes import Processes
from triptych.client import Client, GivenUp, Overloaded, Picture, Refused, TimedOut
from triptych.ipc.shared_memory import FOLDER, PREFIX_VARIABLE
from triptych.model_files import ModelFiles
from triptych.streaming import Step

COMMAND = Path(__file__).parents[2] / "client" / "client.py"
STREAM = "v2/models/sd_ensemble_stream"
IN_FLIGHT = ("triptych_images_in_flight", "unet_loop")
STEPS = ("triptych_steps_total", "unet_loop")
CALLS = ("nv_inference_exec_count", "unet")


@pytest.fixture
def client(server):
    with Client(server.grpc) as client:
        yield client


def small(steps=8, **more):
    return {**SMALL, "num_inference_steps": steps, **more}


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def empty(server):
    return metrics(server.metrics)[IN_FLIGHT] == 0


def test_steps_then_the_very_picture_of_the_ensemble(client, repository):
    *steps, picture = client.stream("a red circle", 60, preview_every=3, **small())
    assert isinstance(picture, Picture)
    assert picture.file == client.generate("a red circle", 60, **small()).file
    assert {step.total for step in steps} == {8}
    told = [step.step for step in steps]
    assert told == sorted(set(told)) and told[-1] == 8
    has_colours = ModelFiles.load(repository / "unet_loop" / "1").latent_rgb
    previews = [step.preview for step in steps if step.preview]
    assert bool(previews) == bool(has_colours)
    for preview in previews:
        assert Image.open(io.BytesIO(preview)).size == (16, 16)


def test_the_last_preview_looks_like_the_picture(client, repository):
    if not ModelFiles.load(repository / "unet_loop" / "1").latent_rgb:
        pytest.skip("this model has no colours for previews: python -m triptych.denoise.preview")
    asked = small(12, height=256, width=256, seed=3)
    *steps, picture = client.stream("a red circle on a blue background", 60, 11, **asked)
    (preview,) = (step.preview for step in steps if step.preview)
    shown = np.asarray(Image.open(io.BytesIO(preview)).convert("RGB"), np.float32)
    drawn = np.asarray(picture.image.convert("RGB").resize((32, 32), Image.BOX), np.float32)
    differences = [(pixels - pixels.mean(axis=(0, 1))).ravel() for pixels in (shown, drawn)]
    assert np.corrcoef(*differences)[0, 1] > 0.5


def test_the_loop_is_everybodys(client, calls, server):
    """Streamed or not, images share the UNet's calls."""
    before = metrics(server.metrics)[CALLS]
    with ThreadPoolExecutor(4) as pool:
        streamed = [pool.submit(list, client.stream("x", 60, **small(30))) for _ in range(2)]
        usual = [pool.submit(client.generate, "x", 60, **small(30)) for _ in range(2)]
    assert all(one.result() for one in [*streamed, *usual])
    assert metrics(server.metrics)[CALLS] - before < 100


def test_leaving_the_stream_ends_the_work_at_the_next_tick(client, server):
    wait_for(lambda: empty(server))
    stream = client.stream("x", 60, **small(200))
    told = iter(stream)
    assert isinstance(next(told), Step)
    stream.cancel()
    with pytest.raises(GivenUp):
        list(told)
    time.sleep(0.5)  # metrics are told a little later
    wait_for(lambda: empty(server), 5)
    steps = metrics(server.metrics)[STEPS]
    time.sleep(0.5)
    assert metrics(server.metrics)[STEPS] == steps
    assert isinstance([*client.stream("x", 60, **small(2))][-1], Picture)


def test_closing_the_connection_of_http_ends_the_work_too(server):
    wait_for(lambda: empty(server))
    reply = generate_stream(server, small(200))
    assert reply.readline().startswith(b"data: ")
    reply.close()
    wait_for(lambda: empty(server), 5)


def generate_stream(server, settings, **parameters):
    body = {"INPUT_0": request("a red circle", **settings).decode(), **parameters}
    data = json.dumps(body).encode()
    return urllib.request.urlopen(f"http://{server.http}/{STREAM}/generate_stream", data, 60)


def test_server_sent_events(client, server):
    with generate_stream(server, small(), preview_every=0) as reply:
        assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        events = [json.loads(line[6:]) for line in reply if line.startswith(b"data: ")]
    *steps, last = events
    assert steps and all((event["total"], "preview" in event) == (8, False) for event in steps)
    assert steps[-1]["step"] == 8
    file = base64.b64decode(last["OUTPUT_0"])
    assert file == client.generate("a red circle", 60, **small()).file


def test_settings_as_parameters(client, server):
    own = {"guidance_scale": 2.5, "scheduler": "euler", "seed": 7, "num_inference_steps": 2}
    body = {"INPUT_0": "a red circle", "preview_every": 0, **own}
    data = json.dumps(body).encode()
    url = f"http://{server.http}/{STREAM}/generate_stream"
    with urllib.request.urlopen(url, data, 60) as reply:
        *_, last = [json.loads(line[6:]) for line in reply if line.startswith(b"data: ")]
    assert base64.b64decode(last["OUTPUT_0"]) == client.generate("a red circle", 60, **own).file


def test_a_request_that_cannot_be_is_refused_by_name(client, server):
    with pytest.raises(Refused, match=r"^height: got 100; allowed: 96 or 104, the nearest sizes"):
        list(client.stream("x", 60, height=100))
    with pytest.raises(Refused, match=r"preview_every: got -1; allowed: "):
        list(client.stream("x", 60, preview_every=-1))
    status, reply = post(f"{server.http}/{STREAM}/generate", {"INPUT_0": ""})
    assert status == 400
    assert "prompt: got ''; allowed: " in reply["error"]


def test_the_timeout_ends_the_work(client, server):
    with pytest.raises(TimedOut):
        list(client.stream("x", 0.5, **small(200)))
    wait_for(lambda: empty(server), 5)


def test_more_streams_than_the_server_takes_are_refused_and_the_others_come(client, server):
    tiny = {"height": 64, "width": 64, "num_inference_steps": 20}

    def outcome(number):
        try:
            return type([*client.stream("x", 120, **tiny, seed=number)][-1])
        except Overloaded as error:
            return type(error)

    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(outcome, range(40)))
    assert set(outcomes) <= {Picture, Overloaded}
    # One that has just left may be counted for a moment, in the place of another.
    assert outcomes.count(Picture) >= 30
    wait_for(lambda: empty(server))


def test_nothing_stays_in_shared_memory(client, server):
    triton = Processes(server.process.pid).all()["triton"]
    told = Path(f"/proc/{triton}/environ").read_bytes().decode().split("\0")
    (prefix,) = (one.partition("=")[2] for one in told if one.startswith(PREFIX_VARIABLE))

    def stays():
        return [name for name in os.listdir(FOLDER) if re.match(f"{prefix}progress_", name)]

    stream = iter(client.stream("x", 60, **small(4)))
    next(stream)
    assert stays()
    list(stream)
    wait_for(lambda: not stays())


def test_a_request_id_of_ones_own_does_no_harm(calls):
    inputs = {"INPUT_0": texts(request(**small(2)))}
    result = calls.client.infer("sd_ensemble", tensors(inputs), request_id="0" * 32)
    assert result.as_numpy("OUTPUT_0").shape == (1, 1)


def on_a_terminal(command, tmp_path):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(60) == 0, written
    return written.decode()


def test_the_command_shows_a_bar_on_a_terminal_and_none_in_a_pipe(server, tmp_path):
    command = [sys.executable, str(COMMAND), "a red circle", "--url", server.grpc, "--steps", "30"]
    command += ["--height", "128", "--width", "128", "--count", "2", "--scheduler", "ddim"]
    shown = on_a_terminal(command, tmp_path)
    counts = [int(count) for count in re.findall(r"(\d+)/60 \[", shown)]
    assert counts and counts == sorted(counts)
    assert re.search(r"out-1\.png: 128x128, seed \d+, [\d.]+ s", shown)
    assert (tmp_path / "out-2.png").is_file()
    piped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert piped.returncode == 0
    assert piped.stderr == ""
