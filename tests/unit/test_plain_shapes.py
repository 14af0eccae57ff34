"""Shapes that were computed number by number, as constants: attention and reshapes in small."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from triptych_export import plain_shapes
from triptych_export.cli import CHECKOUT
from triptych_export.errors import ExportError

HEADS, SIZE = 2, 4
RNG = np.random.RandomState(0)


class Traced:
    """A graph as PyTorch's tracing writes it, node by node."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def add(self, kind, *inputs, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def weight(self, values):
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def axis(self, name, index):
        one = self.add("Gather", self.add("Shape", name), self.weight(np.int64(index)), axis=0)
        return self.add("Unsqueeze", one, self.weight(np.array([0])))

    def reshape(self, name, *axes):
        parts = [one if isinstance(one, str) else self.weight(np.array([one])) for one in axes]
        return self.add("Reshape", name, self.add("Concat", *parts, axis=0))

    def heads(self, name):
        """[batch, tokens, channels] to [batch * heads, tokens, size]."""
        batch, tokens = self.axis(name, 0), self.axis(name, 1)
        rows = self.add("Mul", batch, self.weight(np.array([HEADS])))
        apart = self.reshape(name, batch, tokens, HEADS, SIZE)
        turned = self.add("Transpose", apart, perm=[0, 2, 1, 3])
        return self.reshape(turned, rows, tokens, SIZE)

    def attention(self, picture, between="Cast"):
        """Of each position of a [batch, channels, height, width] to all, as diffusers writes it."""
        batch, channels, height, width = (self.axis(picture, index) for index in range(4))
        area = self.add("Mul", height, width)
        flat = self.reshape(picture, batch, channels, area)
        tokens = self.add("Transpose", flat, perm=[0, 2, 1])
        square = RNG.standard_normal((HEADS * SIZE, HEADS * SIZE)).astype("f")
        query, key, value = (
            self.heads(self.add("MatMul", tokens, self.weight(square * part)))
            for part in (0.3, 0.2, 0.1)
        )
        axes = self.axis(query, 0), self.axis(query, 1), self.axis(key, 1)
        zeros = self.add("ConstantOfShape", self.add("Concat", *axes, axis=0))
        scores = self.add("MatMul", query, self.add("Transpose", key, perm=[0, 2, 1]))
        if between == "Cast":
            scaled = self.add("Mul", scores, self.weight(np.float32(0.5)))
            nothing = self.add("Mul", zeros, self.weight(np.float32(0)))
            scores = self.add("Cast", self.add("Add", scaled, nothing), to=TensorProto.FLOAT)
        else:
            scores = self.add(between, scores)
        weighted = self.add("MatMul", self.add("Softmax", scores, axis=-1), value)
        halves = self.add("Div", self.axis(weighted, 0), self.weight(np.array([HEADS])))
        apart = self.reshape(weighted, halves, HEADS, self.axis(weighted, 1), SIZE)
        turned = self.add("Transpose", apart, perm=[0, 2, 1, 3])
        joined = self.reshape(turned, halves, self.axis(weighted, 1), HEADS * SIZE)
        back = self.add("Transpose", joined, perm=[0, 2, 1])
        whole = self.reshape(back, batch, channels, height, width)
        return self.add("Add", whole, picture)

    def group_norm(self, picture, groups):
        grouped = self.add("Reshape", picture, self.weight(np.array([0, groups, -1])))
        ones, zeros = (self.weight(np.full(groups, one, "f")) for one in (1, 0))
        normed = self.add("InstanceNormalization", grouped, ones, zeros)
        return self.add("Reshape", normed, self.add("Shape", picture))

    def model(self, output):
        axes = ["batch", HEADS * SIZE, "height", "width"]
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, axes) for n in ("x", output))
        graph = helper.make_graph(self.nodes, "traced", [x], [y], self.weights)
        opsets = [helper.make_opsetid("", 16)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model, x):
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    return session.run(None, {"x": x})[0]


def test_attention_gives_the_same_bits_and_computes_no_shape_from_numbers():
    traced = Traced()
    model = traced.model(traced.attention("x"))
    sizes = (1, 8, 3, 5), (3, 8, 4, 2)
    inputs = [RNG.standard_normal(size).astype("f") for size in sizes]
    expected = [run(model, x) for x in inputs]
    plain_shapes.simplify(model)
    for x, wanted in zip(inputs, expected):
        assert np.array_equal(run(model, x), wanted)
    once = model.SerializeToString(deterministic=True)
    plain_shapes.simplify(model)
    assert model.SerializeToString(deterministic=True) == once
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Shape") == 1, "of the picture, for its height and width"
    assert not {"Gather", "Concat", "Unsqueeze", "ConstantOfShape"}.intersection(kinds)


def test_a_group_norm_gives_the_same_bits_and_needs_no_shape():
    traced = Traced()
    model = traced.model(traced.group_norm("x", groups=4))
    inputs = [RNG.standard_normal(size).astype("f") for size in ((1, 8, 3, 5), (3, 8, 4, 2))]
    expected = [run(model, x) for x in inputs]
    plain_shapes.simplify(model)
    for x, wanted in zip(inputs, expected):
        assert np.array_equal(run(model, x), wanted)
    assert "Shape" not in {node.op_type for node in model.graph.node}


def test_an_operator_between_heads_that_it_does_not_know_is_refused():
    traced = Traced()
    model = traced.model(traced.attention("x", between="Round"))
    with pytest.raises(ExportError, match="Round"):
        plain_shapes.simplify(model)


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder"])
def test_the_repositorys_graphs_are_so(name):
    path = CHECKOUT / "model_repository" / name / "1" / "model.onnx"
    graph = onnx.load(str(path), load_external_data=False).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    found = {made.get(node.input[1]) for node in graph.node if node.op_type == "Reshape"}
    assert found <= {"Constant", "Shape", None}
