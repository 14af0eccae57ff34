"""Compares an exported network with the framework that its weights came from, and finishes it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from triptych_export import fuse_cuda, onnx_files, plain_shapes, shallow
from triptych_export.apart import run_apart
from triptych_export.errors import ExportError
from triptych_export.progress import Progress
from triptych_export.stages import Stage

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

BOUND = 1e-4
"""The largest difference that is allowed, relative to the framework's largest output."""
HALF_BOUND = 2e-2
"""The same, for weights or arithmetic in half precision."""


@dataclass(frozen=True)
class Wanted:
    """What to make of a network whose numbers were found right.

    half_storage: whether its weights are stored in half precision; None does so where they would
    not fit one file in single precision. external_weights: whether model.onnx.data may lie beside
    model.onnx where one file does not hold both. cuda: a fused graph is written too.
    """

    half_storage: bool | None = None
    external_weights: bool = False
    cuda: bool = False


def finish_stage(
    stage: Stage,
    folder: Path,
    feeds: list[dict],
    expected: list[np.ndarray],
    wanted: Wanted,
    progress: Progress,
) -> None:
    """Compare folder/model.onnx with the framework, then make of it what is `wanted`.

    ExportError over a bound, and for weights in a file of their own that are not `wanted` so.
    """
    path = folder / "model.onnx"
    half = wanted.half_storage
    if half is None:
        half = onnx_files.has_external_weights(path)
    if not half:
        _require_one_file(stage, path, half, wanted)
    with progress.step(f"{stage.name}: compare in ONNX Runtime"):
        onnx_files.require_whole(path)
        error = difference(run_onnx(path, feeds), expected)
        require_close(stage.name, error)
    progress.say(f"{stage.name}: error {error:.1e} of the greatest value")
    if wanted.cuda and stage.name in fuse_cuda.KINDS:
        _fuse(stage, folder, feeds, expected, progress)
    with progress.step(f"{stage.name}: plain shapes" + ", weights to half precision" * half):
        model = onnx.load(str(path))
        for old in folder.glob("model.onnx*"):
            old.unlink()
        plain_shapes.simplify(model)
        if half:
            onnx_files.store_in_half(model)
        onnx_files.save(model, folder)
        del model
        _require_one_file(stage, path, half, wanted)
        error = difference(run_onnx(path, feeds), expected)
        require_close(f"{stage.name}, rewritten", error, HALF_BOUND if half else BOUND)
    if half:
        progress.say(f"{stage.name}: error {error:.1e} with weights rounded to half precision")
    if stage.name == "unet":
        _write_shallow(folder, progress)


def _write_shallow(folder: Path, progress: Progress) -> None:
    """The graphs for requests with cache_interval, which are refused without them."""
    graphs = [folder / name for name in ("model.onnx", fuse_cuda.NAME)]
    with progress.step("unet: its last layer alone, for cache_interval"):
        lacking = [one.name for one in graphs if one.exists() and not shallow.write(one)]
    for name in lacking:
        progress.say(f"unet: requests with cache_interval are refused: {name} is of another kind")


def _require_one_file(stage: Stage, path: Path, half: bool, wanted: Wanted) -> None:
    if wanted.external_weights or not onnx_files.has_external_weights(path):
        return
    size = f"{onnx_files.size_on_disk(path.parent) / 1e9:.1f} GB" + " in half precision" * half
    halves = "" if half else "--precision fp16-storage halves them, "
    raise ExportError(
        f"{stage.name}: its weights, {size}, do not fit one file, and FastDeploy, which loads "
        f"networks from memory, takes no other; {halves}--external-weights writes them to a second "
        "file, for Triptych's own backend alone"
    )


def _fuse(
    stage: Stage,
    folder: Path,
    feeds: list[dict],
    expected: list[np.ndarray],
    progress: Progress,
) -> None:
    path = folder / fuse_cuda.NAME
    with progress.step(f"{stage.name}: fuse for CUDA"):
        with tempfile.TemporaryDirectory() as scratch:
            log = Path(scratch) / "log"
            counts = run_apart(fuse_cuda.__name__, "fuse", stage.name, folder, log=log)
        onnx_files.require_whole(path)
    fused = ", ".join(f"{name} {count}" for name, count in counts.items())
    progress.say(f"{stage.name}: fused for CUDA: {fused}")
    if CUDA not in onnxruntime.get_available_providers():
        progress.say(f"{stage.name}: {path.name} was NOT run: this machine has no CUDA provider")
        return
    with progress.step(f"{stage.name}: compare on CUDA"):
        error = difference(run_onnx(path, feeds, CUDA), expected)
        require_close(f"{stage.name} fused for CUDA", error, HALF_BOUND)
    progress.say(f"{stage.name}: error {error:.1e} on CUDA")


def run_onnx(path: Path, inputs: list[dict], provider: str = CPU) -> list[np.ndarray]:
    """The outputs of the graph in `path`, for each of `inputs` one after another."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    return [output for feeds in inputs for output in session.run(None, feeds)]


def difference(outputs: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest absolute difference, relative to the largest expected value.

    It is infinite where shapes differ and where an output is NaN or infinite.
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
