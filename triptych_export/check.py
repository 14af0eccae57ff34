"""ONNX Runtime against the framework that the weights came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from triptych_export.errors import ExportError

BOUND = 1e-4
"""Greatest allowed difference, as a part of the greatest value of the framework's output."""
HALF_BOUND = 2e-2
"""The same for weights in half precision against the weights as they were."""


def run_onnx(path: Path, inputs: list[dict]) -> list[np.ndarray]:
    """The first output of the graph in `path` on the CPU, for each of `inputs`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, feeds)[0] for feeds in inputs]


def difference(outputs: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Greatest absolute difference as a part of the greatest expected value; inf if not comparable."""
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
            f"{name}: ONNX Runtime differs from the framework by {error:.2e} of the greatest "
            f"value, {bound:.0e} is allowed; the repository is as it was"
        )
