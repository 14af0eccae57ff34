"""Writing an ONNX model: one file, with the weights beside it where protobuf's 2 GB do not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from triptych_export.errors import ExportError

LARGEST_SINGLE_FILE = 1_900_000_000
HALF_MAX = 65504.0
HALF_FROM = 256
"""Tensors with fewer elements stay in single precision: they weigh nothing."""


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> None:
    """Write `model` to folder/name; over protobuf's limit, the weights to folder/name.data."""
    if model.ByteSize() < LARGEST_SINGLE_FILE:
        onnx.save_model(model, str(folder / name))
    else:
        onnx.save_model(
            model,
            str(folder / name),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=f"{name}.data",
        )


def store_in_half(model: onnx.ModelProto) -> None:
    """Change the weights of `model` to half precision, each with a Cast back to single.

    ONNX Runtime folds the casts when it loads the model: it computes as before, on rounded weights.
    """
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if not _fits_half(values):
            continue
        stored = numpy_helper.from_array(values.astype(np.float16), f"{weight.name}.half")
        casts.append(
            helper.make_node(
                "Cast", [stored.name], [weight.name], stored.name, to=TensorProto.FLOAT
            )
        )
        weight.CopyFrom(stored)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def rounded_to_half(values: np.ndarray) -> np.ndarray:
    """`values` as a model stored in half precision computes with them, in single precision."""
    return values.astype(np.float16).astype(np.float32) if _fits_half(values) else values


def _fits_half(values: np.ndarray) -> bool:
    return values.size >= HALF_FROM and np.abs(values).max() <= HALF_MAX


def require_whole(path: Path) -> None:
    """ExportError if an exporter left `path` missing or empty."""
    if not path.is_file() or path.stat().st_size == 0:
        raise ExportError(f"{path.name} came out empty: the exporter failed without an error")


def size_on_disk(folder: Path) -> int:
    """Bytes of the files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
