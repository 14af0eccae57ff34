"""`triptych doctor`: what it finds on machines that have more or less."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from triptych import cli
from triptych.commands import doctor
from triptych.fastdeploy import providers
from triptych.ipc import shared_memory
from triptych.names import Names
from triptych.server import embedded, preflight

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


@pytest.fixture(autouse=True)
def own_ports(monkeypatch):
    """Ports that nobody else uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(preflight, "PORTS", dict.fromkeys(preflight.PORTS, "0"))
        yield taken.getsockname()[1]


def examined(repository=REPOSITORY):
    return {one.subject: one for one in doctor.examine(str(repository), "127.0.0.1")}


def command(tmp_path, monkeypatch, name, says=""):
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_this_machine_can_serve(capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "24.10 in nvidia-pytriton" in shown
    assert "networks run on" in shown
    assert shown.endswith("The server can start.\n")


def test_without_a_triton(monkeypatch, capsys):
    monkeypatch.setattr(embedded, "folder", lambda: None)
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "-> pip install 'triptych[serve]'" in shown
    assert shown.endswith("The server cannot start: Triton\n")


def test_servers_on_path_come_first(tmp_path, monkeypatch):
    command(tmp_path, monkeypatch, "tritonserver")
    found = examined()
    assert found["tritonserver"].text.startswith(f"{tmp_path}/tritonserver")
    assert "libpython" not in found
    command(tmp_path, monkeypatch, "fastdeployserver")
    found = examined()
    assert "fastdeployserver" in found and "tritonserver" not in found
    assert "ONNX Runtime" not in found


def test_a_gpu(tmp_path, monkeypatch):
    command(tmp_path, monkeypatch, "nvidia-smi", "NVIDIA A10, 23028 MiB, 535.104.05")
    assert examined()["GPU"] == ("ok", "GPU", "NVIDIA A10, 23028 MiB, 535.104.05", "")


def test_the_command_that_brings_cuda_is_told(monkeypatch):
    reasons = {
        providers.CUDA: "this ONNX Runtime is built without it",
        providers.TENSORRT: "no GPU",
    }
    monkeypatch.setattr(providers, "unusable", lambda built_in: reasons)
    found = examined()
    assert found["CUDA"].fix == "with a GPU: make web GPU=1"
    assert found["TensorRT"].fix == ""


def test_a_numpy_that_does_not_work(monkeypatch):
    version = embedded.metadata.version
    known = {"numpy": "2.4.0"}
    monkeypatch.setattr(embedded.metadata, "version", lambda name: known.get(name) or version(name))
    found = examined()["Python in Triton"]
    assert found.state == doctor.MISSING
    assert "pip install 'numpy<2'" in found.fix


def test_shared_memory_that_is_too_small(monkeypatch):
    monkeypatch.setattr(preflight, "NEEDED_SHARED_MEMORY", 2**62)
    found = examined()["/dev/shm"]
    assert found.state == doctor.MISSING
    assert "--shm-size" in found.fix
    assert shared_memory.FOLDER.is_dir()


def test_models_that_are_not_there(tmp_path):
    assert examined(tmp_path)["models"].state == doctor.MISSING
    shutil.copytree(REPOSITORY / "unet", tmp_path / "unet", ignore=lambda *_: ["1"])
    found = examined(tmp_path)["models"]
    assert found.state == doctor.MISSING
    assert found.text.endswith("no network in unet")


def test_models_of_several_names(tmp_path):
    for name in (*Names().all, *Names("ink").all, "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text('backend: "python"')
    assert examined(tmp_path)["models"].text == f"{tmp_path}: sd_ensemble, ink, other"
    (tmp_path / "ink.unet" / "config.pbtxt").unlink()
    found = examined(tmp_path)["models"]
    assert (found.state, found.text) == (doctor.MISSING, f"{tmp_path}: no ink.unet")


def test_each_model_needs_shared_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "MORE_SHARED_MEMORY", 2**62)
    assert examined()["/dev/shm"].state == doctor.OK
    for name in (*Names().all, *Names("ink").all):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").touch()
    assert examined(tmp_path)["/dev/shm"].state == doctor.MISSING


def test_ports_in_use(own_ports, monkeypatch, capsys):
    monkeypatch.setitem(preflight.PORTS, "grpc", str(own_ports))
    found = examined()["port (grpc)"]
    assert found.state == doctor.NOTE
    assert "--grpc-port=N" in found.fix
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("The server can start, on other ports.\n")


@pytest.mark.parametrize("arguments", [[], ["doctor", "--x"], ["nothing"]])
def test_arguments_that_make_no_sense(arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_shows_an_example_and_exit_codes(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"example:\n  triptych {name}" in shown
    assert "exit codes:\n  0 " in shown


def fastdeploy(tmp_path, monkeypatch, version=""):
    """A machine with FastDeploy's server, and its Python package if there is text for it."""
    command(tmp_path, monkeypatch, "fastdeployserver")
    if version:
        (tmp_path / "fastdeploy").mkdir()
        (tmp_path / "fastdeploy" / "__init__.py").write_text("raise ImportError('no libcuda')")
        (tmp_path / "fastdeploy" / "code_version.py").write_text(version)
        monkeypatch.syspath_prepend(tmp_path)
    return examined()


def test_fastdeploy_and_what_it_was_built_with(tmp_path, monkeypatch):
    version = "version = '1.0.4'\nenable_trt_backend = 'ON'\nwith_gpu = 'OFF'\n"
    found = fastdeploy(tmp_path, monkeypatch, version)["FastDeploy"]
    assert found == ("ok", "FastDeploy", "1.0.4, built with trt, without gpu", "")
    distribution = tmp_path / "fastdeploy_gpu_python-1.0.4.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Name: fastdeploy-gpu-python\nVersion: 1.0.4\n")
    text = examined()["FastDeploy"].text
    assert text == "fastdeploy-gpu-python 1.0.4, built with trt, without gpu"


def test_fastdeploys_server_without_its_packages(tmp_path, monkeypatch):
    found = fastdeploy(tmp_path, monkeypatch)
    assert found["FastDeploy"].state == found["Paddle"].state == doctor.NOTE
    assert "requirements/paddle-gpu.txt" in found["Paddle"].fix
