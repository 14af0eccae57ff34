"""Libraries of CUDA and TensorRT from Python packages."""

import subprocess
import sys

import onnxruntime
import pytest

from triptych.fastdeploy import libraries


@pytest.fixture
def loaded(monkeypatch):
    """Names of the files that are loaded, in their order."""
    names = []

    def load(path):
        names.append(path.rpartition("/")[2])

    monkeypatch.setattr(libraries.ctypes, "CDLL", load)
    return names


@pytest.fixture
def old_onnxruntime(monkeypatch, tmp_path):
    """ONNX Runtime before 1.21, with packages in the folder that is returned."""
    monkeypatch.delattr(onnxruntime, "preload_dlls", raising=False)
    monkeypatch.setattr(libraries.sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path / "nvidia"


def test_an_old_onnxruntime_finds_cuda_in_packages(old_onnxruntime, loaded):
    for path in ("cublas/lib/libcublas.so.11", "cublas/lib/libcublasLt.so.11"):
        (old_onnxruntime / path).parent.mkdir(parents=True, exist_ok=True)
        (old_onnxruntime / path).touch()
    for name in ("libcudart.so.11.0", "libcudart.a", "libother.so.1"):
        (old_onnxruntime / "cuda_runtime" / "lib").mkdir(parents=True, exist_ok=True)
        (old_onnxruntime / "cuda_runtime" / "lib" / name).touch()
    libraries.load()
    assert loaded == ["libcudart.so.11.0", "libcublasLt.so.11", "libcublas.so.11"]


def test_without_packages_nothing_is_loaded(old_onnxruntime, loaded):
    libraries.load()
    assert loaded == []


def test_a_newer_onnxruntime_loads_cuda_itself(monkeypatch, loaded):
    calls = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: calls.append(1), raising=False)
    libraries.load()
    assert calls == [1] and loaded == []


def test_the_package_tensorrt_is_imported(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("print('loaded')")
    script = "from triptych.fastdeploy import libraries; libraries.load()"
    command = [sys.executable, "-c", script]
    shown = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    ).stdout
    assert shown == "loaded\n"


def test_whether_a_library_loads():
    assert libraries.loads("libc.so.6")
    assert not libraries.loads("libnothing.so.0")
