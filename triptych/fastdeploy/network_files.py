"""The files of one network in its version folder: which of them runs, and its session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from triptych.errors import ModelFileError, one_line
from triptych.fastdeploy import providers, sessions
from triptych.fastdeploy.accelerators import Accelerators

EXPORT = "make it with scripts/export_stages.py"


def which(folder: Path, provider: str, fp16: bool) -> Path:
    """The file in `folder` for a network that `provider` runs, half precision allowed or not.

    model.cuda.onnx, which the export's --optimize cuda writes, holds operators that CUDA alone has
    and computes in half precision; everything else runs model.onnx.
    """
    if provider == providers.CUDA and fp16 and fused(folder).exists():
        return fused(folder)
    return folder / "model.onnx"


def fused(folder: Path) -> Path:
    return folder / "model.cuda.onnx"


def load(
    path: Path, chosen: list[tuple[str, dict[str, Any]]], accelerators: Accelerators
) -> onnxruntime.InferenceSession:
    """A session of the file; ModelFileError if it is missing or damaged."""
    if not path.exists():
        if path.with_name("model.pdmodel").exists():
            problem = "missing; this server runs ONNX, and model.pdmodel is for FastDeploy's own"
            raise ModelFileError(path, problem, EXPORT)
        raise ModelFileError(path, "no such file", EXPORT)
    try:
        return sessions.start(str(path), chosen, accelerators)
    except Exception as error:
        raise ModelFileError(path, f"cannot be loaded ({one_line(error)})", EXPORT) from error
