"""Attention whose queries, keys and values come each by a product of its own.

ONNX Runtime's fusion has them in one, a head's three beside each other, as its own kernels take
them. cuDNN's, which it prefers on Hopper, takes them apart: that was a pass over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from triptych_export.rewriting import Rewriting


class SeparateHeads(Rewriting):
    def __init__(self, model: OnnxModel) -> None:
        super().__init__(model)
        self._producers = model.output_name_to_node()

    def replaced(self, node: NodeProto) -> Iterable[NodeProto]:
        if node.op_type != "MultiHeadAttention" or len(node.input) > 2:
            return [node]
        *query, packed = node.input
        reshape = self._producers[packed]
        product = self._producers[reshape.input[0]]
        _, _, heads, parts, size = self.values(reshape.input[1])
        weights = self.values(product.input[1]).reshape(-1, heads, parts, size)
        products = []
        for part in range(parts):
            name = f"{packed}.{part}"
            weight = weights[:, :, part].reshape(len(weights), -1)
            inputs = [product.input[0], self.constant(f"{name}.weight", weight)]
            products.append(helper.make_node("MatMul", inputs, [name]))
        node.input[:] = [*query, *(one.output[0] for one in products)]
        return [*products, node]
