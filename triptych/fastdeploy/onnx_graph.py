"""A graph's weights in a model.onnx, and the same graph with some of them as inputs.

ONNX Runtime tells nobody a graph's weights and changes none. So the file is read here, as far as
that is needed: https://protobuf.dev/programming-guides/encoding and onnx.proto have the numbers.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_GRAPH, _OPSETS, _METADATA = 7, 8, 14  # of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of GraphProto
_DIMS, _TYPE, _TENSOR_NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14  # of TensorProto
_NODE_INPUT, _NODE_OUTPUT, _OPERATOR = 1, 2, 4  # of NodeProto

HALF = ".half"
"""Ends the name of a weight that the export stored in half precision, for a Cast to single."""

_TYPES = {1: np.float32, 10: np.float16}


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
            for number, start, end, _ in _fields(all_, 0, len(all_)):
                if number == _METADATA:
                    pair = _values(all_, start, end)
                    self.metadata[_text(pair.get(1))] = _text(pair.get(2))
                if number != _GRAPH:
                    continue
                for kind, first, last, _ in _fields(all_, start, end):
                    if kind == _INITIALIZER:
                        self._add(all_, first, last)
                    elif kind == _NODE:
                        node = _values(all_, first, last)
                        if _text(node.get(_OPERATOR)) == "Cast":
                            casts[_text(node[_NODE_INPUT])] = _text(node[_NODE_OUTPUT])
        for name in [name for name in self.weights if name.endswith(HALF)]:
            if casts.get(name) == name[: -len(HALF)]:
                weight = self.weights.pop(name)
                single = weight._replace(name=casts[name], dtype=np.float32)
                self.weights[single.name] = single

    def _add(self, data: Any, start: int, end: int) -> None:
        """An initializer, if it is of floats whose place in a file is known."""
        dims: list[int] = []
        offset, size, kind, name, external = -1, -1, 0, "", {}
        for number, first, last, value in _fields(data, start, end):
            if number == _DIMS:
                dims += [value] if value is not None else _packed(data, first, last)
            elif number == _TYPE:
                kind = value
            elif number == _TENSOR_NAME:
                name = data[first:last].decode()
            elif number == _RAW:
                offset, size = first, last - first
            elif number == _EXTERNAL:
                pair = _values(data, first, last)
                external[_text(pair.get(1))] = _text(pair.get(2))
        file = external.get("location", "")
        if file:
            offset, size = int(external.get("offset", 0)), int(external.get("length", -1))
        if kind in _TYPES and offset >= 0:
            stored = _TYPES[kind]
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
        for number, start, end, whole in _spans(data, 0, len(data)):
            if number != _GRAPH:
                parts.append(data[whole:end])
                continue
            for kind, first, last, begin in _spans(data, start, end):
                if kind == _INITIALIZER:
                    keep = _text(_values(data, first, last).get(_TENSOR_NAME)) not in gone
                elif kind == _NODE:
                    node = _values(data, first, last)
                    cast = _text(node.get(_OPERATOR)) == "Cast"
                    keep = not (cast and _text(node.get(_NODE_OUTPUT)) in names)
                else:
                    keep = True
                if keep:
                    graph.append(data[begin:last])
            graph += [
                _message(_INPUT, _value(name, self.weights[name].shape, self.weights[name].dtype))
                for name in names
            ]
            parts.append(_message(_GRAPH, b"".join(graph)))
        return b"".join(parts)

    def json(self, name: str) -> Any:
        """The value of an entry of the metadata, None if there is none."""
        return json.loads(self.metadata[name]) if name in self.metadata else None


def copying_model(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A model that copies its inputs NAME.from, of these shapes and types, to outputs NAME.to."""
    graph = [_message(2, b"copies")]
    for name, array in tensors.items():
        source, target = f"{name}.from", f"{name}.to"
        node = ((_NODE_INPUT, source), (_NODE_OUTPUT, target), (_OPERATOR, "Identity"))
        graph.append(_message(_NODE, b"".join(_message(key, one.encode()) for key, one in node)))
        graph.append(_message(_INPUT, _value(source, array.shape, array.dtype)))
        graph.append(_message(_OUTPUT, _value(target, array.shape, array.dtype)))
    version = _message(_OPSETS, b"\x10" + _varint(16))
    return b"\x08" + _varint(8) + version + _message(_GRAPH, b"".join(graph))


def _value(name: str, shape: tuple[int, ...], dtype: Any) -> bytes:
    """A ValueInfoProto: a tensor's name, type and shape."""
    number = next(key for key, kind in _TYPES.items() if np.dtype(kind) == dtype)
    dims = b"".join(_message(1, b"\x08" + _varint(size)) for size in shape)
    tensor = b"\x08" + _varint(number) + _message(2, dims)
    return _message(1, name.encode()) + _message(2, _message(1, tensor))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _spans(data: Any, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """For each field its number, where its contents begin and end, and where it begins itself."""
    begin = at
    for number, first, last, _ in _fields(data, at, end):
        yield number, first, last, begin
        begin = last


def _fields(data: Any, at: int, end: int) -> Iterator[tuple[int, int, int, int | None]]:
    """For each field its number, where its contents begin and end, and its value as a varint."""
    while at < end:
        key, at = _read_varint(data, at)
        wire, value = key & 7, None
        first = at
        if wire == 0:
            value, at = _read_varint(data, at)
        elif wire == 2:
            length, first = _read_varint(data, at)
            at = first + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("not an ONNX model")
        if at > end:
            raise ValueError("an ONNX model that is cut off")
        yield key >> 3, first, at, value


def _read_varint(data: Any, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("not an ONNX model")
        byte = data[at]
        number |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return number, at


def _packed(data: Any, at: int, end: int) -> list[int]:
    numbers = []
    while at < end:
        number, at = _read_varint(data, at)
        numbers.append(number)
    return numbers


def _values(data: Any, start: int, end: int) -> Mapping[int, bytes]:
    """The first value of each field that is a text or message, except large ones."""
    found: dict[int, bytes] = {}
    for number, first, last, value in _fields(data, start, end):
        if value is None and last - first < 2**24:
            found.setdefault(number, data[first:last])
    return found


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
