"""`triptych stages` and `triptych doctor` beside the real server."""

import io
import json
import socket

import pytest
from PIL import Image

from triptych import cli
from triptych.client import Client
from triptych.commands import doctor
from triptych.server import preflight

SMALL = ["--steps", "2", "--width", "128", "--height", "128"]


@pytest.fixture
def stages(server, tmp_path):
    """`stages(*arguments)`: the exit code; the picture goes to `stages.path`."""

    def run(*arguments):
        return cli.main(["stages", "-o", str(run.path), "--url", server.grpc, *arguments])

    run.path = tmp_path / "stages.png"
    return run


def test_the_tour(stages, server, capsys):
    assert stages("a red circle", "--seed", "7", *SMALL) == 0
    shown = capsys.readouterr().out
    names = [line for line in shown.splitlines() if not line.startswith(" ")]
    order = ["tokenizer", "text_encoder", "text_encoder", "unet_loop", "unet", "vae_decoder"]
    assert names[:8] == [*order, "image_encoder", "sd_ensemble"]
    assert shown.count(" ms\n") == 8
    assert "[1,4,16,16]" in shown
    assert "the very same file" in shown
    with Client(server.grpc) as client:
        picture = client.generate(
            "a red circle", 60, seed=7, num_inference_steps=2, width=128, height=128
        )
    assert stages.path.read_bytes() == picture.file


def test_a_seed_is_chosen_once(stages, capsys):
    assert stages("x", *SMALL) == 0
    assert Image.open(io.BytesIO(stages.path.read_bytes())).size == (128, 128)
    assert "the very same file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--width", "100"], 2, "width: got 100; allowed: "),
        (["--trace", "/nowhere/at/all.json"], 2, "there is no folder /nowhere/at"),
        (["--timeout", "0.001"], 6, "within 0.001 s"),
    ],
)
def test_what_goes_wrong_has_a_code(stages, capsys, arguments, code, said):
    assert stages("x", *arguments) == code
    assert said in capsys.readouterr().err
    assert not stages.path.exists()


def test_no_server(tmp_path, capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{nobody.getsockname()[1]}"
        assert cli.main(["stages", "-o", str(tmp_path / "x.png"), "--url", url]) == 3
    assert "no server at" in capsys.readouterr().err


def test_a_trace_of_one_request(stages, tmp_path, repository, capsys):
    trace = tmp_path / "trace.json"
    options = ["--trace", str(trace), "--model-repository", str(repository)]
    assert stages("x", *SMALL, *options) == 0
    events = json.loads(trace.read_text())["traceEvents"]
    rows = {one["tid"]: one["args"]["name"] for one in events if one["ph"] == "M"}
    order = ["sd_ensemble", "tokenizer", "text_encoder", "text_encoder", "unet_loop"]
    assert [rows[row] for row in sorted(rows)] == [*order, "vae_decoder", "image_encoder"]
    whole = {rows[one["tid"]]: one for one in events if one["name"] == rows[one["tid"]]}
    longest = max(whole, key=lambda name: whole[name]["dur"] if name != "sd_ensemble" else 0)
    assert longest in ("unet_loop", "vae_decoder")
    inside = whole.pop("sd_ensemble")
    for one in whole.values():
        assert 0 <= one["ts"] <= one["ts"] + one["dur"] <= inside["dur"] + 1000


def test_the_doctor_sees_a_server_that_is_there(server, monkeypatch):
    ports = dict(zip(("http", "grpc", "metrics"), (server.http, server.grpc, server.metrics)))
    monkeypatch.setattr(
        preflight, "PORTS", {name: url.split(":")[1] for name, url in ports.items()}
    )
    found = {one.subject: one for one in doctor.examine(doctor.REPOSITORY, "127.0.0.1")}
    assert "a Triton listens there already" in found["port (http)"].text
    assert found["port (grpc)"].state == doctor.NOTE
