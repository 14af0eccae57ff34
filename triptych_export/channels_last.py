"""A fused graph whose pictures keep their channels last, as its convolutions and norms take them.

ONNX Runtime's fusion puts a Transpose before and after each of these norms, and here each
convolution gets them too. Those that meet go. What lies between others, additions, ReLU, the
joining of skip connections and the doubling of sizes, works in either layout; where it takes
channels last, all of them meet.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from triptych_export.rewriting import DOMAIN, Rewriting, attributes

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
"""The axes that a Transpose from NHWC to NCHW takes in order, and one back."""


class ChannelsLast(Rewriting):
    def __init__(self, model: OnnxModel) -> None:
        super().__init__(model)
        self._last: dict[str, str] = {}  # a tensor -> the same with its channels last
        self._instead: dict[str, str] = {}  # an output that is not computed -> what stands for it

    def replaced(self, node: NodeProto) -> Iterable[NodeProto]:
        node.input[:] = [self._instead.get(name, name) for name in node.input]
        if node.op_type == "Conv" and node.input[1] in self.weights:
            return self._convolution(node)
        if not node.input or node.input[0] not in self._last:
            if _is_transpose(node, TO_FIRST):
                self._last[node.output[0]] = node.input[0]
            return [node]
        given = attributes(node)
        last = self._last[node.input[0]]
        if _is_transpose(node, TO_LAST):
            self._instead[node.output[0]] = last
            return []
        if node.op_type == "Shape" and not given:
            shape = f"{node.output[0]}.last"
            return [
                helper.make_node("Shape", [last], [shape]),
                self._picked(shape, TO_FIRST, node.output[0]),
            ]
        if node.op_type == "Resize" and "axes" not in given:
            numbers = [name and f"{node.output[0]}.{name}.last" for name in node.input[1:]]
            picked = [
                self._picked(name, TO_LAST, new)
                for name, new in zip(node.input[1:], numbers)
                if name
            ]
            return [*picked, *self._moved(node, [last, *numbers], **given)]
        if all(name in self._last for name in node.input):
            inputs = [self._last[name] for name in node.input]
            if node.op_type in ("Add", "Relu"):
                return self._moved(node, inputs)
            if node.op_type == "Concat" and given["axis"] == 1:
                return self._moved(node, inputs, axis=3)
        return [node]

    def _convolution(self, node: NodeProto) -> list[NodeProto]:
        """Becomes NhwcConv; ONNX Runtime's own fusion would read what BareGraph left out."""
        source, kernel, *bias = node.input
        last = self._last.get(source)
        turned = []
        if last is None:
            last = self._last[source] = f"{source}.last"
            turned.append(helper.make_node("Transpose", [source], [last], perm=TO_LAST))
        kernel = self.constant(f"{kernel}.last", self.values(kernel).transpose(TO_LAST))
        node.op_type, node.domain = "NhwcConv", DOMAIN
        return [*turned, *self._moved(node, [last, kernel, *bias], **attributes(node))]

    def _moved(self, node: NodeProto, inputs: list[str], **given) -> list[NodeProto]:
        """The node with its channels last, and a Transpose for whoever wants them first."""
        (output,) = node.output
        self._last[output] = f"{output}.last"
        return [
            helper.make_node(
                node.op_type, inputs, [self._last[output]], node.name, domain=node.domain, **given
            ),
            helper.make_node("Transpose", [self._last[output]], [output], perm=TO_FIRST),
        ]

    def _picked(self, name: str, order: list[int], output: str) -> NodeProto:
        """The four numbers of the tensor `name`, one an axis, in that order."""
        return helper.make_node("Gather", [name, self.constant(f"{output}.order", order)], [output])


def _is_transpose(node: NodeProto, axes: list[int]) -> bool:
    return node.op_type == "Transpose" and list(node.attribute[0].ints) == axes
