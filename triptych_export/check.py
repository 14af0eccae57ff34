"""What an exported network computes, against the framework that the weights came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from triptych_export import onnx_files
from triptych_export.errors import ExportError
from triptych_export.progress import Progress
from triptych_export.stages import Stage

BOUND = 1e-4
"""Greatest allowed difference, as a part of the greatest value of the framework's output."""
HALF_BOUND = 2e-2
"""The same where weights or arithmetic are in half precision."""


def finish_stage(
    stage: Stage,
    folder: Path,
    feeds: list[dict],
    expected: list[np.ndarray],
    half: bool,
    progress: Progress,
) -> None:
    """Compare folder/model.onnx with the framework, then change its storage to half if asked.

    ExportError over the bound, before the change and after it.
    """
    path = folder / "model.onnx"
    with progress.step(f"{stage.name}: compare in ONNX Runtime"):
        onnx_files.require_whole(path)
        error = difference(run_onnx(path, feeds), expected)
        require_close(stage.name, error)
    told = f"{stage.name}: error {error:.1e} of the greatest value"
    if half:
        with progress.step(f"{stage.name}: weights to half precision"):
            model = onnx.load(str(path))
            for old in folder.glob("model.onnx*"):
                old.unlink()
            onnx_files.store_in_half(model)
            onnx_files.save(model, folder)
            del model
            error = difference(run_onnx(path, feeds), expected)
            require_close(f"{stage.name} in half precision", error, HALF_BOUND)
        told += f", {error:.1e} with the weights rounded to half precision"
    progress.say(told)


def run_onnx(path: Path, inputs: list[dict]) -> list[np.ndarray]:
    """The first output of the graph in `path` on the CPU, for each of `inputs`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, feeds)[0] for feeds in inputs]


def difference(outputs: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Greatest absolute difference as a part of the greatest expected value.

    Infinite where shapes differ or a value is no number.
    """
    worst = 0.0
    for output, reference in zip(outputs, expected):
        if output.shape != reference.shape or not np.isfinite(output).all():
            return float("inf")
        worst = max(worst, float(np.abs(output - reference).max() / np.abs(reference).max()))
    return worst


def require_close(name: str, error: float, bound: float = BOUND) -> None:
    """ExportError if `error` is over `bound` or is no number."""
    if not error <= bound:
        raise ExportError(
            f"{name}: differs from the framework by {error:.2e} of the greatest value, "
            f"{bound:.0e} is allowed; the repository is as it was"
        )
