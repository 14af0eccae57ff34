"""Shapes of the weights in an ONNX file, found without the onnx package and without reading them.

The file is a ModelProto of onnx.proto3 in Protocol Buffers' wire format, of which four fields
matter here; the rest is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_GRAPH, _INITIALIZER, _DIMS, _NAME = 7, 5, 1, 8  # of ModelProto, GraphProto, TensorProto twice


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of each weight by its name; ValueError if the file is no ONNX."""
    found = {}
    with open(path, "rb") as file:
        whole = os.fstat(file.fileno()).st_size
        for graph, end in _messages(file, whole, _GRAPH):
            file.seek(graph)
            for _, tensor_end in _messages(file, end, _INITIALIZER):
                name, dims = _tensor(file, tensor_end)
                found[name] = dims
    return found


def _messages(file: BinaryIO, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where each field `wanted` begins and ends, up to `end`; the file then stands at its begin."""
    while file.tell() < end:
        number, kind, size = _field(file)
        begin = file.tell()
        if begin + size > end:
            raise ValueError("a field is longer than the file")
        if number == wanted and kind == 2:
            yield begin, begin + size
        file.seek(begin + size)


def _tensor(file: BinaryIO, end: int) -> tuple[str, tuple[int, ...]]:
    name, dims = "", []
    while file.tell() < end:
        number, kind, size = _field(file)
        after = file.tell() + size
        if number == _NAME:
            name = file.read(size).decode("utf-8", "replace")
        elif number == _DIMS and kind == 0:
            dims.append(_varint(file))
            after = file.tell()
        elif number == _DIMS:
            while file.tell() < after:
                dims.append(_varint(file))
        file.seek(after)
    return name, tuple(dims)


def _field(file: BinaryIO) -> tuple[int, int, int]:
    """The next field's number, wire type, and size in bytes; of a varint the file is before it."""
    tag = _varint(file)
    number, kind = tag >> 3, tag & 7
    if kind == 0:
        begin = file.tell()
        _varint(file)
        size = file.tell() - begin
        file.seek(begin)
    elif kind == 2:
        size = _varint(file)
    elif kind in (1, 5):
        size = 8 if kind == 1 else 4
    else:
        raise ValueError("no Protocol Buffers message")
    return number, kind, size


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends too early")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("no Protocol Buffers message")
