"""What the changes to a fused graph have in common: each goes through its nodes, in order, once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper
from onnxruntime.transformers.onnx_model import OnnxModel

DOMAIN = "com.microsoft"
"""Of ONNX Runtime's own operators."""


class Rewriting:
    """Puts `replaced(node)` in the place of each node; the graph computes the same."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.weights = {weight.name: weight for weight in model.graph().initializer}

    def run(self) -> None:
        nodes = [new for node in self.model.nodes() for new in self.replaced(node)]
        del self.model.graph().node[:]
        self.model.graph().node.extend(nodes)
        self.model.prune_graph(allow_remove_graph_inputs=False)

    def replaced(self, node: NodeProto) -> Iterable[NodeProto]:
        raise NotImplementedError

    def constant(self, name: str, values: np.ndarray | list[int]) -> str:
        """A new weight of that name, which is returned."""
        weight = numpy_helper.from_array(np.asarray(values), name)
        self.model.add_initializer(weight)
        self.weights[name] = weight
        return name

    def values(self, name: str) -> np.ndarray:
        """Of a weight."""
        return numpy_helper.to_array(self.weights[name])


def attributes(node: NodeProto) -> dict[str, Any]:
    """As `helper.make_node` takes them."""
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}
