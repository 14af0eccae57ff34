"""Writing an ONNX model: one file, or two where it is larger than protobuf's 2 GB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from triptych_export.errors import ExportError
from triptych_export.stages import Stage

OPSET = 16
"""Of the graphs that are written. From 17 on a layer norm is one operator, LayerNormalization,
which the ONNX parser of TensorRT 8.5 (FastDeploy's) does not know."""
LARGEST_SINGLE_FILE = 1_900_000_000
HALF = ".half"
"""Ends the name of a weight that is stored in half precision."""
HALF_MAX = 65504.0
HALF_FROM = 256
"""Tensors with fewer elements stay in single precision: they weigh nothing."""


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> None:
    """Write `model` to folder/name; over protobuf's limit, the weights to folder/name.data."""
    if sum(_bytes(weight) for weight in model.graph.initializer) < LARGEST_SINGLE_FILE:
        onnx.save_model(model, str(folder / name))
    else:
        onnx.save_model(
            model,
            str(folder / name),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=f"{name}.data",
        )
        # onnx lets nobody but the owner read the weights; the server may be another user.
        (folder / f"{name}.data").chmod((folder / name).stat().st_mode)


def has_external_weights(path: Path) -> bool:
    """Whether `save` wrote the weights of the graph in `path` to a file of their own."""
    return path.with_name(f"{path.name}.data").is_file()


def is_stored_in_half(path: Path) -> bool:
    """Whether `store_in_half` changed the graph in `path`."""
    graph = onnx.load(str(path), load_external_data=False).graph
    return any(weight.name.endswith(HALF) for weight in graph.initializer)


def rounds(values: np.ndarray) -> bool:
    """Whether `store_in_half` stores a weight of these values in half precision."""
    return values.size >= HALF_FROM and np.abs(values).max() <= HALF_MAX


def store_in_half(model: onnx.ModelProto) -> None:
    """Change the weights of `model` to half precision, each with a Cast back to single.

    ONNX Runtime folds the casts when it loads the model: it computes as before, on rounded weights.
    """
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if not rounds(values):
            continue
        stored = numpy_helper.from_array(values.astype(np.float16), weight.name + HALF)
        single = TensorProto.FLOAT
        casts.append(helper.make_node("Cast", [stored.name], [weight.name], stored.name, to=single))
        weight.CopyFrom(stored)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def constants_to_weights(model: onnx.ModelProto) -> None:
    """Change the Constant nodes of `model` to initialisers, as other exporters write weights."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weight = model.graph.initializer.add()
            weight.CopyFrom(node.attribute[0].t)
            weight.name = node.output[0]
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def name_axes(model: onnx.ModelProto, stage: Stage) -> None:
    """Give the tensors of `model` the axes of `stage`; ExportError if it has other tensors."""
    expected = {**stage.inputs, **stage.outputs}
    tensors = [*model.graph.input, *model.graph.output]
    if sorted(tensor.name for tensor in tensors) != sorted(expected):
        names = ", ".join(tensor.name for tensor in tensors)
        raise ExportError(f"{stage.name}: the graph has the tensors {names}, not {list(expected)}")
    for tensor in tensors:
        shape = tensor.type.tensor_type.shape
        del shape.dim[:]
        for axis in expected[tensor.name]:
            if isinstance(axis, str):
                shape.dim.add(dim_param=axis)
            else:
                shape.dim.add(dim_value=axis)


def require_whole(path: Path) -> None:
    """ExportError if an exporter left `path` missing or empty."""
    if not path.is_file() or path.stat().st_size == 0:
        raise ExportError(f"{path.name} came out empty: the exporter failed without an error")


def size_on_disk(folder: Path) -> int:
    """Bytes of the files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _bytes(tensor: TensorProto) -> int:
    itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return itemsize * int(np.prod(tensor.dims))
