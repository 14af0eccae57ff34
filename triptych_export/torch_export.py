"""The export through PyTorch: every stage traced, written, and compared with diffusers."""

from __future__ import annotations

import gc
from pathlib import Path

from triptych_export import check, onnx_files, torch_road
from triptych_export.progress import Progress
from triptych_export.source import Source
from triptych_export.stages import Stage, examples_to_check

STEPS = 4


def export_stage(
    stage: Stage, source: Source, folder: Path, half: bool, progress: Progress
) -> float:
    """Write `stage` as folder/model.onnx; the error against diffusers, ExportError over the bound.

    half: weights stored in half precision. The graph is then held to the bound against diffusers
    with weights rounded in the same way, and the returned error is that of the rounding too.
    """
    feeds = examples_to_check(stage, source)
    with progress.step(f"{stage.name}: load"):
        module = torch_road.load(stage, source)
    with progress.step(f"{stage.name}: run in PyTorch"):
        expected = torch_road.run(module, feeds)
    with progress.step(f"{stage.name}: trace and write"):
        model = torch_road.export(module, stage, source, folder)
        if half:
            onnx_files.store_in_half(model)
            torch_road.round_to_half(module)
            rounded = torch_road.run(module, feeds)
        del module
        onnx_files.save(model, folder)
        del model
        gc.collect()
        onnx_files.require_whole(folder / "model.onnx")
    with progress.step(f"{stage.name}: compare in ONNX Runtime"):
        outputs = check.run_onnx(folder / "model.onnx", feeds)
    error = check.difference(outputs, rounded if half else expected)
    check.require_close(stage.name, error)
    total = check.difference(outputs, expected)
    told = f"{stage.name}: error {error:.1e} of the greatest value"
    if half:
        told += f", {total:.1e} with the rounding of the weights"
        check.require_close(f"{stage.name} in half precision", total, check.HALF_BOUND)
    progress.say(told)
    return total
