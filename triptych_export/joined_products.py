"""One matrix product for those of many layers that read the same tensor, the timestep or the text.

Each multiplies a few rows: it takes the time to start it and to read its weights, and no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from onnx import NodeProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from triptych_export.rewriting import Rewriting, attributes

OF_ONE_LAYER = 3
"""Queries, keys and values of one layer read the same, and stay apart: see fused_attention."""


class JoinedProducts(Rewriting):
    def __init__(self, model: OnnxModel) -> None:
        super().__init__(model)
        alike: dict[tuple, list[NodeProto]] = defaultdict(list)
        for node in model.nodes():
            if node.op_type in ("Gemm", "MatMul") and set(node.input[1:]) <= set(self.weights):
                given = tuple(sorted(attributes(node).items()))
                alike[node.op_type, node.input[0], len(node.input), given].append(node)
        self._groups = {
            node.output[0]: group
            for group in alike.values()
            if len(group) > OF_ONE_LAYER
            for node in group
        }

    def replaced(self, node: NodeProto) -> Iterable[NodeProto]:
        group = self._groups.get(node.output[0])
        if group is None:
            return [node]
        return self._joined(group) if node is group[0] else []

    def _joined(self, group: list[NodeProto]) -> list[NodeProto]:
        first = group[0]
        given = attributes(first)
        name = f"{first.output[0]}.joined"
        across = 0 if given.get("transB") else 1
        widths = [self.weights[node.input[1]].dims[across] for node in group]
        weights = [
            self.constant(
                f"{name}.{position}",
                np.concatenate([self.values(node.input[position]) for node in group], axis),
            )
            for position, axis in zip(range(1, len(first.input)), (across, 0))
        ]
        outputs = [node.output[0] for node in group]
        cuts = self.constant(f"{name}.widths", widths)
        return [
            helper.make_node(first.op_type, [first.input[0], *weights], [name], **given),
            helper.make_node("Split", [name, cuts], outputs, axis=-1),
        ]
