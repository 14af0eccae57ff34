"""A server whose files are at paths that Triton cannot take."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.calls import Calls, request
from triptych.server.running import RunningServer

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A folder with letters outside ASCII and blanks, in which everything is."""
    folder = tmp_path / "中文 目录"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("triptych", "backends", "model_repository"):
        shutil.copytree(CHECKOUT / name, folder / "mein Trüptych" / name, ignore=ignored)
    for variable in ("TMPDIR", "HOME"):
        (folder / f"{variable} ü").mkdir()
        monkeypatch.setenv(variable, str(folder / f"{variable} ü"))
    monkeypatch.chdir(folder / "mein Trüptych")
    return folder


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_everything_at_odd_places(odd, monkeypatch, locale):
    """The code that runs is that of the odd place: it comes before what is installed."""
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("LANG", locale)
    (odd / "链接").symlink_to("mein Trüptych/model_repository")
    doctor = subprocess.run(
        [sys.executable, "-m", "triptych.cli", "doctor", "--model-repository", odd / "链接"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert "The server can start" in doctor.stdout
    with RunningServer(odd / "链接", odd / "server.log") as server:
        assert Path(f"/proc/{server.process.pid}/cwd").resolve() == odd / "mein Trüptych"
        calls = Calls(server.grpc)
        (picture,) = calls.pictures(request("红色 ü", num_inference_steps=2, seed=7))
        assert picture.startswith(b"\x89PNG")
        calls.close()
        assert server.stop() == 0


@pytest.mark.parametrize("name", ["my repo", "it's; a $(touch x)"])
def test_a_repository_whose_path_a_shell_would_take_apart(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).symlink_to(CHECKOUT / "model_repository")
    with RunningServer(Path(name), tmp_path / "server.log") as server:
        calls = Calls(server.grpc)
        assert calls.pictures(request(num_inference_steps=1))
        calls.close()
    assert not (tmp_path / "x").exists()


def test_a_long_temporary_folder(tmp_path, monkeypatch):
    """Too long for the name of a socket, by which the loop calls the UNet with `channel` on."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    repository = tmp_path / "repository"
    shutil.copytree(CHECKOUT / "model_repository", repository)
    with (repository / "unet" / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "channel" value { string_value: "true" } }\n')
    with RunningServer(repository, tmp_path / "server.log") as server:
        calls = Calls(server.grpc)
        assert calls.pictures(request(num_inference_steps=1))
        calls.close()
