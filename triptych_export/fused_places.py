"""Where the framework's weights are in a fused graph: whole, turned, or in one tensor with others.

Fusion gives weights new names, puts channels last, and joins those of several layers. Each is found
by its values, so that no kind of fusion has to be known here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_np_to_float16

from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.fastdeploy.places import PLACES, TRANSPOSED, places

ORDERS = {2: ((1, 0), (0, 1)), 4: ((0, 1, 2, 3), (0, 2, 3, 1))}
"""The axes of a weight in the orders in which a graph can have it."""


def write_places(fused: onnx.ModelProto, plain: Path) -> int:
    """Add to the metadata of `fused` where the weights of the graph in `plain` are.

    Returns how many were found. A weight whose values another one has too is left out. A graph
    that keeps no names of weights gives none.
    """
    graph = OnnxGraph(plain)
    if "config" not in graph.metadata:
        return 0
    parts: dict[bytes, tuple[str, int, int]] = {}
    for name, axis, start, values in _parts(fused):
        parts.setdefault(_digest(values), (name, axis, start))
    found: dict[str, Any] = {}
    taken: dict[tuple, str] = {}
    for place in places(graph)[2].values():
        # What the plain graph has in the weight's own order.
        values = graph.values(place.tensor).transpose(np.argsort(place.axes))
        turned_name = place.tensor.endswith(TRANSPOSED)
        layer = place.tensor[: -len(TRANSPOSED)] if turned_name else place.tensor
        for axes in ORDERS[values.ndim]:
            turned = values.transpose(axes)
            kinds = (convert_np_to_float16(turned), turned)
            part = next((parts[key] for key in map(_digest, kinds) if key in parts), None)
            if part is not None:
                break
        if part is None:
            continue
        if part in taken:
            found.pop(taken[part], None)
            continue
        taken[part] = layer
        name, axis, start = part
        found[layer] = [list(values.shape), name, list(axes), axis, start]
    told = {"config": graph.metadata["config"], PLACES: json.dumps(found)}
    kept = {entry.key: entry.value for entry in fused.metadata_props}
    del fused.metadata_props[:]
    onnx.helper.set_model_props(fused, {**kept, **told})
    return len(found)


def _parts(fused: onnx.ModelProto) -> Iterator[tuple[str, int, int, np.ndarray]]:
    """Every tensor of weights, and the parts of those that hold several: name, axis, start."""
    cuts = {
        node.input[0]: node.input[1]
        for node in fused.graph.node
        if node.op_type == "Split" and len(node.input) > 1
    }
    tensors = {tensor.name: tensor for tensor in fused.graph.initializer}
    joined = {}
    for node in fused.graph.node:
        if node.op_type in ("Gemm", "MatMul") and node.output[0] in cuts:
            across = 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1
            widths = tensors.get(cuts[node.output[0]])
            if widths is not None:
                joined[node.input[1]] = (across, numpy_helper.to_array(widths))
    for name, tensor in tensors.items():
        if len(tensor.dims) not in ORDERS:
            continue
        values = numpy_helper.to_array(tensor)
        yield name, 0, 0, values
        axis, widths = joined.get(name, (1, ()))
        if not len(widths) and values.ndim == 2 and values.shape[1] == 3 * values.shape[0]:
            widths = [values.shape[0]] * 3  # queries, keys and values in one
        for start, width in zip(np.cumsum([0, *widths]), widths):
            index = [slice(None)] * axis + [slice(int(start), int(start + width))]
            yield name, axis, int(start), values[tuple(index)]


def _digest(values: np.ndarray) -> bytes:
    content = hashlib.blake2b(np.ascontiguousarray(values), digest_size=16)
    content.update(repr((values.shape, values.dtype.str)).encode())
    return content.digest()
