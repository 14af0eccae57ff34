"""Convolutions of fused graphs whose weights are inputs, beside ONNX Runtime's own Conv."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from triptych.fastdeploy.onnx_graph import OnnxGraph

RANDOM = np.random.RandomState(0)


def model(operator, weight, bias, domain="", **attributes):
    """One convolution; its picture's axes are not told, since they differ."""
    tensors = [numpy_helper.from_array(weight, "weight")]
    if bias is not None:
        tensors.append(numpy_helper.from_array(bias, "bias"))
    names = ["x", *(tensor.name for tensor in tensors)]
    node = helper.make_node(operator, names, ["y"], domain=domain, **attributes)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("x", "y")
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    versions = [helper.make_opsetid("", 16), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8)


@pytest.mark.parametrize(
    ("size", "attributes", "operators"),
    [
        (1, {}, ["Flatten", "Transpose", "MatMul"]),
        (1, {"strides": [1, 1], "pads": [0] * 4, "group": 1}, ["Flatten", "Transpose", "MatMul"]),
        (1, {"strides": [2, 2]}, ["Transpose", "Transpose", "Conv", "Transpose"]),
        (1, {"pads": [0, 1, 0, 1]}, ["Transpose", "Transpose", "Conv", "Transpose"]),
        (3, {"pads": [1] * 4, "dilations": [1, 1]}, ["Transpose"] * 2 + ["Conv", "Transpose"]),
        (3, {"pads": [0, 0, 1, 1], "strides": [2, 2]}, ["Transpose"] * 2 + ["Conv", "Transpose"]),
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_convolution_with_its_weight_as_an_input(
    tmp_path, size, attributes, operators, with_bias
):
    weight = RANDOM.standard_normal((6, 4, size, size)).astype(np.float32)
    bias = RANDOM.standard_normal(6).astype(np.float32) if with_bias else None
    attributes = {"kernel_shape": [size, size], **attributes}
    last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
    fused = model("NhwcConv", np.zeros_like(last), bias, "com.microsoft", **attributes)
    onnx.save(fused, tmp_path / "model.cuda.onnx")
    changed = OnnxGraph(tmp_path / "model.cuda.onnx").with_inputs(["weight"])
    used = [node.op_type for node in onnx.load_from_string(changed).graph.node]
    added = ["Add"] if with_bias and "MatMul" in operators else []
    assert used == operators + added

    picture = RANDOM.standard_normal((2, 4, 8, 10)).astype(np.float32)
    plain = model("Conv", weight, bias, **attributes).SerializeToString()
    (expected,) = onnxruntime.InferenceSession(plain).run(None, {"x": picture})
    feeds = {"x": picture.transpose(0, 2, 3, 1), "weight": last}
    (got,) = onnxruntime.InferenceSession(changed).run(None, feeds)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


def test_one_whose_weight_stays_is_left_as_it_is(tmp_path):
    weight = np.zeros((6, 1, 1, 4), np.float32)
    onnx.save(model("NhwcConv", weight, None, "com.microsoft"), tmp_path / "model.cuda.onnx")
    (node,) = onnx.load_from_string(
        OnnxGraph(tmp_path / "model.cuda.onnx").with_inputs([])
    ).graph.node
    assert (node.op_type, node.domain, list(node.input)) == (
        "NhwcConv",
        "com.microsoft",
        ["x", "weight"],
    )
