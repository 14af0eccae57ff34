"""The fused graphs' convolutions over pictures whose channels come last, with weights as inputs.

ONNX Runtime's CUDA provider takes its operator NhwcConv with a constant weight alone; any other is
left to the processor, which has no such operator (seen with 1.31). Where the weight is an input,
a convolution of one pixel becomes a product of matrices, any other Conv between transpositions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triptych.fastdeploy import onnx_nodes, protobuf

OPERATOR = "NhwcConv"
_ONES = ("strides", "group", "dilations")


def inputs(data: bytes, start: int, end: int) -> list[str]:
    """The names of a node's inputs; the node is in data[start:end]."""
    return [name.decode() for name in protobuf.every(onnx_nodes.INPUT, data, start, end)]


def is_product(shape: Sequence[int]) -> bool:
    """Whether a weight of this shape, out, height, width, in, or of two axes, makes a product."""
    return len(shape) == 2 or tuple(shape[1:3]) == (1, 1)


def with_weight_input(data: bytes, start: int, end: int, shape: Sequence[int]) -> list[bytes]:
    """The graph's fields for the nodes in place of the NhwcConv in data[start:end].

    `shape` is its weight's: out, height, width, in.
    """
    attributes = protobuf.every(onnx_nodes.ATTRIBUTE, data, start, end)
    output = protobuf.text(protobuf.values(data, start, end)[onnx_nodes.OUTPUT])
    x, weight, *bias = inputs(data, start, end)
    if is_product(shape) and all(map(_changes_nothing, attributes)):
        flat, turned, product = (f"{output}.{part}" for part in ("flat", "turned", "product"))
        nodes = [
            onnx_nodes.node("Flatten", [weight], flat, [onnx_nodes.integer("axis", 1)]),
            onnx_nodes.node("Transpose", [flat], turned, [onnx_nodes.integers("perm", [1, 0])]),
            onnx_nodes.node("MatMul", [x, turned], product if bias else output),
        ]
        return [*nodes, *([onnx_nodes.node("Add", [product, *bias], output)] if bias else [])]
    first, kernel, result = (f"{output}.{part}" for part in ("first", "kernel", "result"))
    channels_first, channels_last = (
        onnx_nodes.integers("perm", [0, 3, 1, 2]),
        onnx_nodes.integers("perm", [0, 2, 3, 1]),
    )
    return [
        onnx_nodes.node("Transpose", [x], first, [channels_first]),
        onnx_nodes.node("Transpose", [weight], kernel, [channels_first]),
        onnx_nodes.node("Conv", [first, kernel, *bias], result, attributes),
        onnx_nodes.node("Transpose", [result], output, [channels_last]),
    ]


def _changes_nothing(attribute: bytes) -> bool:
    """Whether an attribute of a convolution of one pixel leaves each pixel where it is."""
    name = protobuf.text(protobuf.values(attribute, 0, len(attribute))[onnx_nodes.ATTRIBUTE_NAME])
    numbers: list[Any] = []
    for number, first, last, value in protobuf.fields(attribute, 0, len(attribute)):
        if number in (onnx_nodes.INT, onnx_nodes.INTS):
            numbers += protobuf.packed(attribute, first, last) if value is None else [value]
    if name in _ONES:
        return all(number == 1 for number in numbers)
    return name == "kernel_shape" or (name == "pads" and not any(numbers))
