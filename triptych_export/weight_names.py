"""Weights of an ONNX graph under the framework's own names, so that they can be read back.

The tracer makes up a name for a weight that it transposes or reshapes, and stores equal weights
once. Here each gets back its name in the framework's state dict.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
from onnx import numpy_helper

from triptych_export.errors import ExportError
from triptych_export.onnx_files import HALF

WRAPPER = "model."
"""What the traced module puts before the names of the network inside it."""
TRANSPOSED = ".T"
"""Ends the name of an initialiser that holds a weight transposed."""


def name_weights(model: onnx.ModelProto, weights: dict[str, np.ndarray], config: dict) -> None:
    """Give the initialisers of `model` that hold `weights` their names there, NAME or NAME.T.

    The metadata get `config`, the network's config.json, and `same_weights`, which says where a
    weight is that equals one of another name: {NAME: [initialiser, whether it is transposed]}.
    """
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    named = {WRAPPER + key: key for key in weights if WRAPPER + key in initialisers}
    others = {key: value for key, value in weights.items() if WRAPPER + key not in named}
    sizes = {value.size for value in others.values()}
    found = {
        _digest(numpy_helper.to_array(tensor)): name
        for name, tensor in initialisers.items()
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) in sizes
    }
    same = {}
    for key, value in others.items():
        for transposed, array in ((False, value), (True, value.T)):
            name = found.get(_digest(array))
            if name is None:
                continue
            if name in named:
                same[key] = [named[name], transposed]
            else:
                named[name] = key + TRANSPOSED if transposed else key
            break
    _rename(model, named)
    metadata = {"config": config, "same_weights": same}
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})


def read_weights(model: onnx.ModelProto) -> tuple[dict[str, np.ndarray], dict]:
    """The float32 weights of `model` by their names, and the network's config.json.

    Constants of the graph are among them; axes of length 1 can be too many. ExportError if the
    graph was written by something that keeps no names.
    """
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    if "same_weights" not in metadata:
        raise ExportError("the graph keeps no names of weights: only exports of PyTorch's do")
    weights, stored = {}, {}
    for tensor in model.graph.initializer:
        name, array = tensor.name.removesuffix(HALF), numpy_helper.to_array(tensor)
        stored[name] = array.astype(np.float32) if name != tensor.name else array
        if name.endswith(TRANSPOSED):
            weights[name.removesuffix(TRANSPOSED)] = stored[name].T
        else:
            weights[name] = stored[name]
    for key, (name, transposed) in metadata["same_weights"].items():
        weights[key] = stored[name].T if transposed else stored[name]
    return weights, metadata["config"]


def _digest(array: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(array), digest_size=16).digest()


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
