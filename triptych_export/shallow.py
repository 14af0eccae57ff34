"""The UNet's last layer as a graph of its own, for DeepCache: see triptych/denoise/deep_cache.py.

It takes the network's inputs that it needs, then, under the name that this tensor has in the whole
graph, what the deeper layers give: the hidden states that the last layer joins with conv_in's.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import NodeProto, helper
from onnxruntime.transformers.onnx_model import OnnxModel

from triptych_export import onnx_files

_CONVOLUTIONS = ("Conv", "NhwcConv")
_ON_THE_WAY = ("Concat", "Transpose")
"""What may lie between `sample`, its convolution and the place where that is joined, beside the sum
with a bias."""


def write(path: Path) -> bool:
    """Write shallow.onnx beside a UNet's model.onnx, or for another of its graphs its own.

    False, with nothing written, for a graph whose last layer is not joined with conv_in.
    """
    model = OnnxModel(onnx.load(str(path)))
    makers = model.output_name_to_node()
    joins = {
        node.input[0]: _type_of_conv_in(model, makers, node.input[1])
        for node in model.nodes()
        if node.op_type == "Concat" and len(node.input) == 2
    }
    joins = {deep: kind for deep, kind in joins.items() if kind is not None}
    if len(joins) != 1:
        return False
    ((deep, kind),) = joins.items()
    model.remove_node(makers[deep])
    axes = ["batch", "deep.1", "deep.2", "deep.3"]
    model.model.graph.input.append(helper.make_tensor_value_info(deep, kind, axes))
    model.prune_graph(allow_remove_graph_inputs=True)
    del model.model.graph.value_info[:], model.model.metadata_props[:]
    onnx_files.save(model.model, path.parent, path.name.replace("model", "shallow", 1))
    return True


def _type_of_conv_in(model: OnnxModel, makers: dict[str, NodeProto], name: str) -> int | None:
    """The type of a tensor that is the convolution of `sample`; None for any other."""
    kind, convolutions = None, 0
    while name in makers:
        node = makers[name]
        if node.op_type == "Cast":
            kind = kind or node.attribute[0].i
        elif node.op_type in _CONVOLUTIONS:
            convolutions += 1
            kind = kind or _type_of_weight(model, makers, node.input[1])
        elif node.op_type not in _ON_THE_WAY and not _adds_bias(model, node):
            return None
        name = node.input[0]
    return kind if convolutions == 1 and name == "sample" else None


def _adds_bias(model: OnnxModel, node: NodeProto) -> bool:
    return node.op_type == "Add" and model.get_initializer(node.input[1]) is not None


def _type_of_weight(model: OnnxModel, makers: dict[str, NodeProto], name: str) -> int:
    """The type in which a weight is computed with; it may be stored in half precision."""
    if name in makers:
        return makers[name].attribute[0].i
    return model.get_initializer(name).data_type
