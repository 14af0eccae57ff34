"""Shapes that a traced graph computes number by number, as constants where that can be.

PyTorch's tracing writes the shape of each `Reshape` as a Shape, a Gather and an Unsqueeze for every
axis, put together by a Concat: over half of a UNet's nodes, all of which TensorRT takes in. Here a
`Reshape` gets a constant, with 0 for an axis that stays and one -1, or else the `Shape` of a tensor
that has its output's shape. Where no constant could say a product of axes beside another axis that
is free, they stay apart: batch and heads in attention, height and width in a group norm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

from triptych_export.errors import ExportError

Dims = list
"""A tensor's axes: an int each, or the text of an expression of the free ones."""

_ROW_BY_ROW = ("MatMul", "Mul", "Add", "Cast", "Softmax")
"""Operators that give the same with batch and heads as one axis or as two."""


def simplify(model: ModelProto) -> None:
    """Rewrite the shapes in `model`; what it computes stays the same, to the last bit."""
    graph = model.graph
    nodes = list(_PlainShapes(model).nodes())
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(reversed(kept))


def _dims(model: ModelProto) -> dict[str, Dims]:
    """The axes of every tensor that a node computes, and of the graph's inputs."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.INT64:
            light.graph.initializer.append(weight)
        else:  # of its numbers no shape is made
            light.graph.input.append(
                helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            )
    inferred = SymbolicShapeInference.infer_shapes(light, auto_merge=True).graph
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }


class _PlainShapes:
    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._dims = _dims(model)
        self._constants = {weight.name: weight for weight in model.graph.initializer}
        self._groups = _group_norms(model.graph.node, self._dims)
        self._renamed: dict[str, str] = {}
        self._split: set[str] = set()  # tensors that have batch and heads as two axes now
        self._zeros: set[str] = set()
        self._shapes: set[str] = set()  # tensors that are another's whole shape
        self._of_shape: dict[tuple, str] = {}  # the last tensor of each shape

    def nodes(self) -> Iterable[NodeProto]:
        """The graph's nodes in their order, rewritten; some are read by no other then."""
        for value in self._graph.input:
            self._of_shape[tuple(self._dims[value.name])] = value.name
        for node in self._graph.node:
            node.input[:] = [self._renamed.get(name, name) for name in node.input]
            yield from self._replaced(node)
            for name in node.output:
                if name not in self._renamed and name not in self._split and name in self._dims:
                    self._of_shape[tuple(self._dims[name])] = name

    def _replaced(self, node: NodeProto) -> list[NodeProto]:
        if node.op_type == "Constant":
            self._constants[node.output[0]] = node.attribute[0].t
        elif node.op_type == "ConstantOfShape":
            if not node.attribute or not numpy_helper.to_array(node.attribute[0].t).any():
                self._zeros.add(node.output[0])
        elif node.op_type == "Mul" and self._zeros.intersection(node.input):
            self._zeros.update(node.output)
        elif node.op_type == "Shape":
            self._shapes.update(node.output)
        elif node.op_type == "Reshape":
            return self._reshape(node)
        elif self._split.intersection(node.input):
            return self._attention(node)
        return [node]

    def _reshape(self, node: NodeProto) -> list[NodeProto]:
        (data, shape), (output,) = node.input, node.output
        before, after = self._dims[data], self._dims[output]
        if data in self._split and len(after) == 4:
            self._renamed[output] = data
            return []
        if len(before) == 4 and len(after) == 3 and before[2:] == after[1:]:
            self._renamed[output] = data
            self._split.add(data)
            return []
        name = f"{output}.shape"
        if shape == name:
            return [node]
        constant = self._groups.get(output) or _constant(before, after)
        if constant is not None:
            value = numpy_helper.from_array(np.array(constant, np.int64), name)
            made = helper.make_node("Constant", [], [name], value=value)
        elif tuple(after) in self._of_shape and shape not in self._shapes:
            made = helper.make_node("Shape", [self._of_shape[tuple(after)]], [name])
        else:
            return [node]
        node.input[1] = name
        return [made, node]

    def _attention(self, node: NodeProto) -> list[NodeProto]:
        """A node between the heads' split and their joining."""
        others = [name for name in node.input if name not in self._split]
        if node.op_type == "Transpose":
            (perm,) = node.attribute
            if len(perm.ints) == 4:
                return [node]
            perm.ints[:] = [0, *(axis + 1 for axis in perm.ints)]
        elif node.op_type == "Add" and self._zeros.issuperset(others) and others:
            (self._renamed[node.output[0]],) = self._split.intersection(node.input)
            return []
        elif node.op_type not in _ROW_BY_ROW or any(map(self._has_axes, others)):
            raise ExportError(f"a {node.op_type} in the UNet's or VAE's attention is not known")
        self._split.update(node.output)
        return [node]

    def _has_axes(self, name: str) -> bool:
        return name not in self._constants or bool(self._constants[name].dims)


def _group_norms(nodes: Iterable[NodeProto], dims: dict[str, Dims]) -> dict[str, list[int]]:
    """The shapes around the InstanceNormalization that a group norm of a picture is traced as.

    A group becomes its channels below each other, as wide as the picture: the same numbers in the
    same order as in one row, which is what tracing makes of it.
    """
    nodes = list(nodes)
    makers = {name: node for node in nodes for name in node.output}
    readers = defaultdict(list)
    for node in nodes:
        for name in node.input:
            readers[name].append(node)
    shapes = {}
    for node in nodes:
        if node.op_type != "InstanceNormalization":
            continue
        before, (after, *others) = makers.get(node.input[0]), readers[node.output[0]]
        alone = not others and len(readers[node.input[0]]) == 1
        reshapes = before is not None and before.op_type == after.op_type == "Reshape"
        if not alone or not reshapes or dims[before.input[0]] != dims[after.output[0]]:
            continue
        _, groups, *_ = dims[before.output[0]]
        _, channels, *area = dims[after.output[0]]
        if len(area) == 2:
            shapes[before.output[0]] = [0, groups, -1, 0]
            shapes[after.output[0]] = [0, channels, -1, 0]
    return shapes


def _constant(before: Dims, after: Dims) -> list[int] | None:
    """What a `Reshape` of these axes takes for its shape; None where no constant says it."""
    stays = [index < len(before) and before[index] == axis for index, axis in enumerate(after)]
    shape = [
        axis if isinstance(axis, int) else 0 if same else -1 for axis, same in zip(after, stays)
    ]
    return shape if shape.count(-1) <= 1 else None
