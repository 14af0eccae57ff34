"""The client, as command and as library, against the running server."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triptych.client import Client, NotThere, Refused, TimedOut
from triptych.picture.metadata import read_settings

COMMAND = Path(__file__).parents[2] / "client" / "client.py"


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc) as client:
        yield client


def run(server, tmp_path, *arguments):
    """The command in a folder of its own, on the test's server."""
    command = [sys.executable, str(COMMAND), "--url", server.grpc, *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)


def test_a_picture_comes_with_the_settings_it_was_made_with(client):
    picture = client.generate("a red circle", timeout=60, seed=2**63, num_inference_steps=2)
    assert picture.settings.prompt == "a red circle"
    assert picture.settings.seed == 2**63
    assert picture.settings.num_inference_steps == 2
    assert picture.image.size == (picture.settings.width, picture.settings.height)
    assert picture.image.format == "PNG"
    assert 0 < picture.seconds < 60


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_can_be_made_again_from_what_its_file_says(client, output_format):
    asked = {"num_inference_steps": 2, "output_format": output_format, "scheduler": "euler"}
    first = client.generate("ein Kreis 🦊", timeout=60, negative_prompt="é", **asked)
    told = {
        name: getattr(first.settings, name)
        for name in ("negative_prompt", "guidance_scale", "seed", "height", "width")
    }
    again = client.generate(first.settings.prompt, timeout=60, **asked, **told)
    assert again.settings == first.settings
    assert again.file == first.file


def test_a_size_of_ones_own(client):
    picture = client.generate("x", timeout=60, num_inference_steps=1, height=128, width=192)
    assert picture.image.size == (192, 128)


def test_a_long_prompt_is_drawn_with_a_warning(client):
    picture = client.generate("red circle " * 100, timeout=60, num_inference_steps=1)
    (warning,) = picture.settings.warnings
    assert re.match(r"prompt is longer than \d+ tokens; cut off: ", warning)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", -1), ("num_inference_steps", 10**9), ("height", 100), ("scheduler", "x"), ("x", 1)],
)
def test_a_setting_that_cannot_be_is_refused_by_name(client, name, value):
    with pytest.raises(Refused, match=rf"\b{name}: got .*; allowed: "):
        client.generate("x", timeout=60, **{name: value})


def test_an_empty_prompt_is_drawn(client):
    picture = client.generate("", timeout=60, num_inference_steps=2)
    assert picture.settings.prompt == ""


def test_a_timeout_ends_the_wait(client):
    started = time.monotonic()
    with pytest.raises(TimedOut):
        client.generate("x", timeout=0.2, num_inference_steps=200)
    assert time.monotonic() - started < 5
    assert client.generate("x", timeout=60, num_inference_steps=1).file


def test_the_http_port_is_no_grpc(server):
    with Client(server.http) as client, pytest.raises(NotThere, match="it speaks HTTP: give"):
        client.generate("x", timeout=10)


def test_the_command_without_a_prompt_writes_a_picture(server, tmp_path):
    result = run(server, tmp_path, "--num-inference-steps", "2")
    assert result.returncode == 0, result.stderr
    settings = read_settings((tmp_path / "out.png").read_bytes())
    assert settings.prompt == "a yellow sun over green hills at sunset"
    size = f"{settings.width}x{settings.height}"
    assert re.fullmatch(rf"out\.png: {size}, seed {settings.seed}, [\d.]+ s\n", result.stdout)


def test_the_command_writes_as_many_pictures_as_asked(server, tmp_path):
    result = run(
        server, tmp_path, "x", "--count", "3", "--seed", "7", "--steps", "1", "-o", "a.jpg"
    )
    assert result.returncode == 0, result.stderr
    seeds = [read_settings((tmp_path / f"a-{n}.jpg").read_bytes()).seed for n in (1, 2, 3)]
    assert seeds == [7, 8, 9]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--height", "100"], 2, "height: got 100; allowed: 96 or 104, the nearest sizes"),
        (["--steps", "200", "--timeout", "0.2"], 6, "within 0.2 s"),
        (["--url", "127.0.0.1:1"], 3, "no server at 127.0.0.1:1"),
    ],
)
def test_the_exit_code_says_what_was_wrong(server, tmp_path, arguments, exit_code, words):
    result = run(server, tmp_path, "x", *arguments)
    assert result.returncode == exit_code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
