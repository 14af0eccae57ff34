"""Each change to a fused graph: what it computes stays, what it was made for comes."""

from collections import Counter

import numpy as np
import onnx
import pytest
from contrib_operators import evaluate
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.onnx_model import OnnxModel

from triptych_export.channels_last import TO_FIRST, TO_LAST, ChannelsLast
from triptych_export.folded_biases import FoldedBiases
from triptych_export.joined_products import JoinedProducts
from triptych_export.rewriting import DOMAIN


class Graph:
    """A graph of random weights, made node by node; its inputs are float32 of the given shapes."""

    def __init__(self, **inputs):
        self._random = np.random.RandomState(0)
        self._feeds = {name: self._values(shape) for name, shape in inputs.items()}
        self._weights = []
        self._nodes = []

    def _values(self, shape):
        return self._random.standard_normal(shape).astype(np.float32)

    def weight(self, *shape):
        return self.constant(self._values(shape))

    def constant(self, values):
        name = f"weight {len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind, *inputs, outputs=1, domain=None, **attributes):
        names = [f"{kind} {len(self._nodes)}.{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def fused(self, kind, *inputs, **more):
        return self.node(kind, *inputs, domain=DOMAIN, **more)

    def conv(self, x, channels, width, size=3):
        pads = [size // 2] * 4
        weights = self.weight(width, size, size, channels), self.weight(width)
        return self.fused("NhwcConv", x, *weights, pads=pads, strides=[1, 1])

    def first(self, x):
        return self.node("Transpose", x, perm=TO_FIRST)

    def last(self, x):
        return self.node("Transpose", x, perm=TO_LAST)

    def rewritten(self, rewriting, *outputs):
        """How often each operator is there, before `rewriting` and after it, and the nodes then.

        The outputs have to stay as they were.
        """
        single = TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "graph",
            [
                helper.make_tensor_value_info(name, single, ["n", *values.shape[1:]])
                for name, values in self._feeds.items()
            ],
            [helper.make_tensor_value_info(name, single, None) for name in outputs],
            self._weights,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        before, wanted = (
            _count(model),
            [evaluate(_only(model, one), self._feeds) for one in outputs],
        )
        rewriting(OnnxModel(model)).run()
        for name, value in zip(outputs, wanted):
            np.testing.assert_allclose(
                evaluate(_only(model, name), self._feeds), value, rtol=1e-4, atol=1e-4
            )
        return before, _count(model), list(model.graph.node)


def _only(model, output):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [one for one in copy.graph.output if one.name == output]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy


def _count(model):
    return Counter(node.op_type for node in model.graph.node)


def biases(nodes):
    """Convolutions that add a bias of their own."""
    return sum(node.op_type == "NhwcConv" and len(node.input) == 3 for node in nodes)


def test_convolutions_take_their_channels_last():
    graph = Graph(x=(2, 4, 6, 8))
    same, half = ({"pads": [1] * 4, "strides": [stride] * 2} for stride in (1, 2))
    first = graph.node("Conv", "x", graph.weight(8, 4, 3, 3), graph.weight(8), **same)
    second = graph.node("Conv", first, graph.weight(8, 8, 3, 3), **half)
    other = graph.node("Conv", first, graph.weight(2, 8, 3, 3), **same)
    _, after, nodes = graph.rewritten(ChannelsLast, second, other)
    assert (after["Conv"], after["NhwcConv"]) == (0, 3)
    assert after["Transpose"] == 3  # of the input and of both outputs
    assert {node.domain for node in nodes if node.op_type == "NhwcConv"} == {DOMAIN}


def test_channels_stay_last_through_a_sum_and_a_skip_connection():
    graph = Graph(x=(2, 4, 6, 8))
    a, b = (graph.first(graph.conv("x", 8, 8)) for _ in range(2))
    both = graph.node("Concat", graph.node("Add", a, b), a, axis=1)
    out = graph.conv(graph.last(both), 16, 4)
    before, after, nodes = graph.rewritten(ChannelsLast, out)
    assert (before["Transpose"], after["Transpose"]) == (3, 0)
    assert [one.i for node in nodes if node.op_type == "Concat" for one in node.attribute] == [3]


@pytest.mark.parametrize("how", ["sizes", "scales"])
def test_channels_stay_last_where_a_picture_is_doubled(how):
    graph = Graph(x=(2, 4, 6, 8))
    small = graph.first(graph.conv("x", 8, 8))
    if how == "sizes":
        more = ["", "", graph.constant(np.array([2, 8, 8, 12]))]
    else:
        more = ["", graph.constant(np.array([1, 1, 2, 2], np.float32))]
    floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    large = graph.node("Resize", small, *more, mode="nearest", **floor)
    out = graph.conv(graph.last(large), 8, 4)
    before, after, _ = graph.rewritten(ChannelsLast, out)
    assert (before["Transpose"], after["Transpose"]) == (2, 0)


def test_a_shape_with_channels_first_is_still_told():
    graph = Graph(x=(2, 4, 6, 8))
    shape = graph.node("Shape", graph.first(graph.conv("x", 8, 5)))
    out = graph.node("Cast", shape, to=TensorProto.FLOAT)
    before, after, _ = graph.rewritten(ChannelsLast, out)
    assert (before["Transpose"], after["Transpose"]) == (1, 0)


def test_what_is_wanted_with_channels_first_comes_so():
    graph = Graph(x=(2, 4, 6, 8), y=(2, 5, 4, 6))
    a, b = (graph.first(graph.conv("x", 8, 5)) for _ in range(2))
    both = graph.node("Add", a, b)
    mixed = graph.node("Add", both, "y")
    before, after, _ = graph.rewritten(ChannelsLast, both, mixed)
    assert (before["Transpose"], after["Transpose"]) == (2, 1)


def group_norm(graph, kind, inputs, width, outputs=1):
    scale = graph.weight(width), graph.weight(width)
    norm = {"epsilon": 1e-5, "groups": 4, "activation": 1, "channels_last": 1}
    x, *more = inputs
    return graph.fused(kind, x, *scale, *more, outputs=outputs, **norm)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("which", ["x", "skip", "both"])
def test_a_norm_with_a_skip_connection_adds_the_biases_before_it(which, own):
    graph = Graph(x=(2, 4, 6, 8))
    x = "x" if which == "skip" else graph.conv("x", 8, 8)
    skip = "x" if which == "x" else graph.conv("x", 8, 8)
    inputs = [x, skip, *([graph.weight(8)] if own else [])]
    outputs = group_norm(graph, "SkipGroupNorm", inputs, 8, outputs=2)
    _, _, nodes = graph.rewritten(FoldedBiases, *outputs)
    assert biases(nodes) == 0


def test_a_plain_norm_becomes_one_that_can_add_a_bias():
    graph = Graph(x=(3, 4, 6, 8))
    out = group_norm(graph, "GroupNorm", [graph.conv("x", 8, 8)], 8)
    _, after, nodes = graph.rewritten(FoldedBiases, out)
    assert biases(nodes) == 0 and after["SkipGroupNorm"] == 1 and not after["GroupNorm"]


@pytest.mark.parametrize(("width", "left"), [(320, 0), (64, 2)])
def test_a_sum_adds_biases_of_widths_that_have_a_kernel(width, left):
    graph = Graph(x=(2, 4, 6, 8))
    out = graph.node("Add", graph.conv("x", 8, width), graph.conv("x", 8, width, size=1))
    _, after, nodes = graph.rewritten(FoldedBiases, out)
    assert biases(nodes) == left and after["BiasAdd"] == (left == 0)


def test_the_first_norm_of_a_transformer_and_the_next_add_the_bias_before_them():
    graph = Graph(x=(2, 4, 6, 8), attended=(2, 24, 8))
    shape = graph.constant(np.array([0, -1, 8]))
    tokens = graph.node("Reshape", graph.conv("x", 8, 8, size=1), shape)
    first = graph.node("LayerNormalization", tokens, graph.weight(8), graph.weight(8), epsilon=1e-5)
    more = graph.weight(8), graph.weight(8), graph.weight(8)
    second, _, _, whole = graph.fused(
        "SkipLayerNormalization", "attended", tokens, *more, outputs=4, epsilon=1e-5
    )
    _, after, nodes = graph.rewritten(FoldedBiases, first, second, whole)
    assert biases(nodes) == 0 and not after["LayerNormalization"]


def test_a_convolution_with_two_readers_keeps_its_bias():
    graph = Graph(x=(2, 4, 6, 8))
    read = graph.conv("x", 8, 8)
    norm = group_norm(graph, "SkipGroupNorm", [read, "x"], 8)
    other = graph.conv(read, 8, 8)
    _, _, nodes = graph.rewritten(FoldedBiases, norm, other)
    assert biases(nodes) == 2


@pytest.mark.parametrize(("count", "left"), [(4, 1), (3, 3)])
@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm, weights across"])
def test_products_of_many_layers_with_one_tensor_are_one(kind, count, left):
    graph = Graph(x=(5, 6))
    outputs = []
    for width in range(3, 3 + count):
        if kind == "MatMul":
            outputs.append(graph.node("MatMul", "x", graph.weight(6, width)))
        elif kind == "Gemm":
            outputs.append(graph.node("Gemm", "x", graph.weight(6, width), graph.weight(width)))
        else:
            weights = graph.weight(width, 6), graph.weight(width)
            outputs.append(graph.node("Gemm", "x", *weights, transB=1))
    _, after, _ = graph.rewritten(JoinedProducts, *outputs)
    assert after[kind.split(",")[0]] == left and after["Split"] == (left == 1)
