"""A graph's weights in a model.onnx, and the same graph with some of them as inputs.

ONNX Runtime tells nobody a graph's weights and changes none, so the file is read here.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from triptych.fastdeploy import nhwc_conv, onnx_nodes, protobuf

_GRAPH, _METADATA = 7, 14  # of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_DIMS, _TYPE, _TENSOR_NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14  # of TensorProto

HALF = ".half"
"""Ends the name of a weight that the export stored in half precision, for a Cast to single."""


class Weight(NamedTuple):
    """`name` is that of the tensor which the network's layers take, of the type `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: type
    stored_as: str
    stored: type
    file: str
    offset: int


class OnnxGraph:
    """The weights of a graph by name, and its metadata, texts by name."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError or OSError for a file that is none, or is not there."""
        self._path = path
        self.weights: dict[str, Weight] = {}
        self.metadata: dict[str, str] = {}
        casts: dict[str, str] = {}
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as all_:
            for number, start, end, _ in protobuf.fields(all_, 0, len(all_)):
                if number == _METADATA:
                    pair = protobuf.values(all_, start, end)
                    self.metadata[protobuf.text(pair.get(1))] = protobuf.text(pair.get(2))
                if number != _GRAPH:
                    continue
                for kind, first, last, _ in protobuf.fields(all_, start, end):
                    if kind == _INITIALIZER:
                        self._add(all_, first, last)
                    elif kind == _NODE:
                        node = protobuf.values(all_, first, last)
                        if protobuf.text(node.get(onnx_nodes.OPERATOR)) == "Cast":
                            casts[protobuf.text(node[onnx_nodes.INPUT])] = protobuf.text(
                                node[onnx_nodes.OUTPUT]
                            )
        for name in [name for name in self.weights if name.endswith(HALF)]:
            if casts.get(name) == name[: -len(HALF)]:
                weight = self.weights.pop(name)
                single = weight._replace(name=casts[name], dtype=np.float32)
                self.weights[single.name] = single

    def _add(self, data: Any, start: int, end: int) -> None:
        """An initializer, if it is of floats whose place in a file is known."""
        dims: list[int] = []
        offset, size, kind, name, external = -1, -1, 0, "", {}
        for number, first, last, value in protobuf.fields(data, start, end):
            if number == _DIMS:
                dims += [value] if value is not None else protobuf.packed(data, first, last)
            elif number == _TYPE:
                kind = value
            elif number == _TENSOR_NAME:
                name = data[first:last].decode()
            elif number == _RAW:
                offset, size = first, last - first
            elif number == _EXTERNAL:
                pair = protobuf.values(data, first, last)
                external[protobuf.text(pair.get(1))] = protobuf.text(pair.get(2))
        file = external.get("location", "")
        if file:
            offset, size = int(external.get("offset", 0)), int(external.get("length", -1))
        if kind in onnx_nodes.TYPES and offset >= 0:
            stored = onnx_nodes.TYPES[kind]
            if size == math.prod(dims) * np.dtype(stored).itemsize:
                weight = Weight(name, tuple(dims), stored, name, stored, file, offset)
                self.weights[name] = weight

    def values(self, name: str) -> np.ndarray:
        """A weight's values, of the type that the network's layers take."""
        weight = self.weights[name]
        path = self._path.parent / weight.file if weight.file else self._path
        count = math.prod(weight.shape)
        values = np.fromfile(path, weight.stored, count, offset=weight.offset)
        return values.reshape(weight.shape).astype(weight.dtype, copy=False)

    def with_inputs(self, names: Collection[str]) -> bytes:
        """The model with these weights as inputs of the graph, of their names."""
        gone = {self.weights[name].stored_as for name in names}
        data = self._path.read_bytes()
        parts, graph = [], []
        for number, start, end, whole in protobuf.spans(data, 0, len(data)):
            if number != _GRAPH:
                parts.append(data[whole:end])
                continue
            for kind, first, last, begin in protobuf.spans(data, start, end):
                instead = [data[begin:last]]
                if kind == _INITIALIZER:
                    name = protobuf.text(protobuf.values(data, first, last).get(_TENSOR_NAME))
                    instead = [] if name in gone else instead
                elif kind == _NODE:
                    changed = self._with_inputs(data, first, last, names)
                    instead = instead if changed is None else changed
                graph += instead
            for name in names:
                weight = self.weights[name]
                graph.append(onnx_nodes.graph_input(name, weight.shape, weight.dtype))
            parts.append(protobuf.message(_GRAPH, b"".join(graph)))
        return b"".join(parts)

    def _with_inputs(
        self, data: bytes, start: int, end: int, names: Collection[str]
    ) -> list[bytes] | None:
        """The graph's fields in place of a node, None where it stays."""
        node = protobuf.values(data, start, end)
        operator = protobuf.text(node.get(onnx_nodes.OPERATOR))
        if operator == "Cast" and protobuf.text(node.get(onnx_nodes.OUTPUT)) in names:
            return []
        if operator == nhwc_conv.OPERATOR:
            weight = nhwc_conv.inputs(data, start, end)[1]
            if weight in names:
                shape = self.weights[weight].shape
                return nhwc_conv.with_weight_input(data, start, end, shape)
        return None

    def json(self, name: str) -> Any:
        """The value of an entry of the metadata, None if there is none."""
        return json.loads(self.metadata[name]) if name in self.metadata else None
