"""CUDA, cuDNN and TensorRT from Python packages, for machines whose system has none."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sysconfig
from pathlib import Path

import onnxruntime

_CUDA = ("cudart", "cublasLt", "cublas", "cudnn", "curand", "cufft")


def load() -> None:
    """Load what the packages nvidia-... and tensorrt have of them, so that providers find it.

    What no package has is left to the system's loader.
    """
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    else:  # ONNX Runtime before 1.21
        _load_cuda(Path(sysconfig.get_path("purelib")) / "nvidia")
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt")  # which loads its libraries


def _load_cuda(packages: Path) -> None:
    """The libraries of the packages in that folder that ONNX Runtime's CUDA provider is linked to.

    Once loaded they are found by name.
    """
    for name in _CUDA:
        for path in sorted(packages.glob(f"*/lib/lib{name}.so.*")):
            loads(str(path))


def loads(library: str) -> bool:
    """Whether that library is loaded or can be."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
