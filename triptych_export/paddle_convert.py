"""A native Paddle model to ONNX. Runs in Paddle's environment."""

from __future__ import annotations

import os
import zlib  # noqa: F401  before Paddle, see paddle_road
from pathlib import Path

import onnx
import paddle2onnx

from triptych_export import onnx_files
from triptych_export.stages import Stage

WEIGHTS = "paddle.data"


def convert(stage: Stage, folder: Path) -> None:
    """Write folder/model.onnx from folder/model.pdmodel and .pdiparams, of the same numbers."""
    folder = folder.resolve()  # before the current folder is another
    large = (folder / "model.pdiparams").stat().st_size > onnx_files.LARGEST_SINGLE_FILE
    os.chdir(folder)  # paddle2onnx writes weights beside the graph into the current folder
    paddle2onnx.export(
        "model.pdmodel",
        "model.pdiparams",
        "model.onnx",
        opset_version=onnx_files.OPSET,
        auto_upgrade_opset=False,
        verbose=False,
        external_file=WEIGHTS if large else "",
    )
    onnx_files.require_whole(folder / "model.onnx")
    model = onnx.load("model.onnx")
    Path(WEIGHTS).unlink(missing_ok=True)
    onnx_files.constants_to_weights(model)
    onnx_files.name_axes(model, stage)
    onnx_files.save(model, folder)
