"""Biases of convolutions, added by the operators that come after them.

cuDNN adds a bias in a pass of its own over all that a convolution gives. ONNX Runtime's norms with
a skip connection, and its BiasAdd, take one with what they read anyhow.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import NodeProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from triptych_export.rewriting import DOMAIN, Rewriting, attributes

ADD_WIDTHS = (320, 640, 1280)
"""The lengths of a bias that CUDA's kernel of BiasAdd is made for, and no others."""


class FoldedBiases(Rewriting):
    """For a graph of ChannelsLast."""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__(model)
        self._producers = model.output_name_to_node()
        self._readers = {
            name: [node for node in nodes if node.op_type != "Shape"]
            for name, nodes in model.input_name_to_nodes().items()
        }
        self._convolutions = {
            node.output[0]: node
            for node in model.nodes()
            if node.op_type == "NhwcConv" and len(node.input) == 3
        }

    def replaced(self, node: NodeProto) -> Iterable[NodeProto]:
        change = {
            "SkipGroupNorm": self._skip_group_norm,
            "GroupNorm": self._group_norm,
            "LayerNormalization": self._layer_norm,
            "Add": self._add,
        }.get(node.op_type)
        return [node] if change is None else change(node)

    def _skip_group_norm(self, node: NodeProto) -> list[NodeProto]:
        found = self._folding(node.input[0], node.input[3])
        if found:
            own = [node.input.pop()] if len(node.input) == 5 else []
            node.input.append(self._bias(node, found, *own))
        return [node]

    def _group_norm(self, node: NodeProto) -> list[NodeProto]:
        """Becomes SkipGroupNorm, with the bias as what skips: one row of it a picture."""
        found = self._folding(node.input[0])
        if not found:
            return [node]
        name = node.output[0]
        shape, rows, bias = (f"{name}.{part}" for part in ("shape", "rows", "rows of bias"))
        width = self.constant(f"{name}.width", [1])
        return [
            helper.make_node("Shape", [node.input[0]], [shape], start=0, end=1),
            helper.make_node("Concat", [shape, width], [rows], axis=0),
            helper.make_node("Expand", [self._bias(node, found), rows], [bias]),
            helper.make_node(
                "SkipGroupNorm", [*node.input, bias], [name], domain=DOMAIN, **attributes(node)
            ),
        ]

    def _layer_norm(self, node: NodeProto) -> list[NodeProto]:
        """Becomes SkipLayerNormalization with zeros that skip, and the bias.

        Where the convolution's pixels, as tokens, are read by this norm and, as what skips, by the
        one after the attention, whose bias then has it too.
        """
        tokens = node.input[0]
        norms = [one for one in self._readers[tokens] if one.op_type == "SkipLayerNormalization"]
        reshape = self._producers.get(tokens)
        if reshape is None or reshape.op_type != "Reshape" or len(self._readers[tokens]) != 2:
            return [node]
        found = self._folding(reshape.input[0])
        if not (found and norms and len(norms[0].input) == 5):
            return [node]
        name = node.output[0]
        shape, zeros = f"{name}.shape", f"{name}.zeros"
        bias = self._bias(node, found)
        norms[0].input[4] = self._sum(f"{norms[0].output[0]}.bias", [bias, norms[0].input[4]])
        kind = self.values(node.input[1]).dtype
        value = helper.make_tensor("zero", helper.np_dtype_to_tensor_dtype(kind), [1], [0])
        return [
            helper.make_node("Shape", [tokens], [shape], start=1),
            helper.make_node("ConstantOfShape", [shape], [zeros], value=value),
            helper.make_node(
                "SkipLayerNormalization",
                [tokens, zeros, *node.input[1:3], bias],
                [name],
                domain=DOMAIN,
                epsilon=attributes(node).get("epsilon", 1e-5),
            ),
        ]

    def _add(self, node: NodeProto) -> list[NodeProto]:
        """Becomes BiasAdd, which knows pixels as tokens only."""
        found = self._folding(*node.input)
        if not found:
            return [node]
        name = node.output[0]
        width = self.weights[self._convolutions[found[0]].input[2]].dims[0]
        if width not in ADD_WIDTHS:
            return [node]
        tokens = self.constant(f"{name}.as tokens", [0, -1, width])
        first, second, added, shape = (
            f"{name}.{part}" for part in ("first", "second", "added", "shape")
        )
        return [
            helper.make_node("Reshape", [node.input[0], tokens], [first]),
            helper.make_node("Reshape", [node.input[1], tokens], [second]),
            helper.make_node(
                "BiasAdd", [first, self._bias(node, found), second], [added], domain=DOMAIN
            ),
            helper.make_node("Shape", [node.input[0]], [shape]),
            helper.make_node("Reshape", [added, shape], [name]),
        ]

    def _folding(self, *names: str) -> list[str]:
        """Those of the tensors that a convolution with a bias gives to one reader alone."""
        return [
            name for name in names if name in self._convolutions and len(self._readers[name]) == 1
        ]

    def _bias(self, node: NodeProto, found: list[str], *more: str) -> str:
        """One for those of the convolutions that give `found`, which lose theirs, and `more`."""
        own = [self._convolutions.pop(name).input.pop() for name in found]
        return self._sum(f"{node.output[0]}.bias", [*own, *more])

    def _sum(self, name: str, biases: list[str]) -> str:
        values = [self.values(bias) for bias in biases]
        total = sum(value.astype(np.float32) for value in values).astype(values[0].dtype)
        return self.constant(name, total)
