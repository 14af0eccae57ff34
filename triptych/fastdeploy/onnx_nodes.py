"""Nodes, inputs and models of ONNX, written as onnx.proto has them, and sessions of small ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from triptych.fastdeploy import protobuf

IR_VERSION, OPSET = 8, 16
_MODEL_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 11, 12
INPUT, OUTPUT, NAME, OPERATOR, ATTRIBUTE = 1, 2, 3, 4, 5  # of NodeProto
ATTRIBUTE_NAME, INT, INTS, _KIND = 1, 3, 8, 20  # of AttributeProto
_IS_INT, _IS_INTS = 2, 7
TYPES = {1: np.float32, 10: np.float16}


def node(
    operator: str, inputs: Sequence[str], output: str, attributes: Iterable[bytes] = ()
) -> bytes:
    """A graph's field with a node of one output, which has the output's name."""
    parts = [protobuf.message(INPUT, name.encode()) for name in inputs]
    parts += [protobuf.message(key, output.encode()) for key in (OUTPUT, NAME)]
    parts.append(protobuf.message(OPERATOR, operator.encode()))
    parts += [protobuf.message(ATTRIBUTE, attribute) for attribute in attributes]
    return protobuf.message(_GRAPH_NODE, b"".join(parts))


def integer(name: str, value: int) -> bytes:
    """An attribute."""
    return _attribute(name, _IS_INT, _number(INT, value))


def integers(name: str, values: Sequence[int]) -> bytes:
    """An attribute that is a list."""
    return _attribute(name, _IS_INTS, b"".join(_number(INTS, value) for value in values))


def graph_input(name: str, shape: Sequence[int | str], dtype: Any) -> bytes:
    """A graph's field with an input; a text is the name of a size that may be any."""
    return protobuf.message(_GRAPH_INPUT, _value(name, shape, dtype))


def graph_output(name: str, shape: Sequence[int | str], dtype: Any) -> bytes:
    """A graph's field with an output."""
    return protobuf.message(_GRAPH_OUTPUT, _value(name, shape, dtype))


def model(fields: Iterable[bytes]) -> bytes:
    """A model whose graph has these fields."""
    graph = protobuf.message(_GRAPH_NAME, b"graph") + b"".join(fields)
    version = protobuf.message(_MODEL_OPSET, _number(2, OPSET))
    return _number(_MODEL_VERSION, IR_VERSION) + version + protobuf.message(_MODEL_GRAPH, graph)


def session(fields: Iterable[bytes], device: tuple[str, int]) -> onnxruntime.InferenceSession:
    """A session of `model(fields)` on a device, ONNX Runtime's name and number of it."""
    name, number = device
    on_cuda = ("CUDAExecutionProvider", {"device_id": number, "use_tf32": 0})
    chosen = ["CPUExecutionProvider"] if name == "cpu" else [on_cuda]
    return onnxruntime.InferenceSession(model(fields), providers=chosen)


def with_output(model: bytes, name: str) -> bytes:
    """The model with one more output, a tensor of its graph."""
    # Messages that follow each other are one: lists go on in the second.
    output = protobuf.message(_GRAPH_OUTPUT, protobuf.message(1, name.encode()))
    return model + protobuf.message(_MODEL_GRAPH, output)


def _value(name: str, shape: Sequence[int | str], dtype: Any) -> bytes:
    """A ValueInfoProto: a tensor's name, type and shape."""
    kind = next(key for key, one in TYPES.items() if np.dtype(one) == dtype)
    dims = b"".join(
        protobuf.message(
            1, _number(1, size) if isinstance(size, int) else protobuf.message(2, size.encode())
        )
        for size in shape
    )
    tensor = _number(1, kind) + protobuf.message(2, dims)
    return protobuf.message(1, name.encode()) + protobuf.message(2, protobuf.message(1, tensor))


def _attribute(name: str, kind: int, value: bytes) -> bytes:
    return protobuf.message(ATTRIBUTE_NAME, name.encode()) + value + _number(_KIND, kind)


def _number(field: int, value: int) -> bytes:
    return protobuf.varint(field << 3) + protobuf.varint(value)
