import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks import weightless


def test_a_graph_without_weights_gets_others_like_them(tmp_path):
    random = np.random.RandomState(0)
    weights = {
        "large": random.normal(3, 0.5, (64, 300)).astype(np.float32),
        "half": random.normal(0, 0.1, (300, 40)).astype(np.float16),
        "ones": np.ones(40 * 30, np.float32).reshape(40, 30),
        "few": np.arange(30, dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["a"]),
        helper.make_node("Cast", ["half"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["a", "single"], ["b"]),
        helper.make_node("MatMul", ["b", "ones"], ["c"]),
        helper.make_node("Add", ["c", "few"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 30])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "whole.onnx")
    bare = tmp_path / "bare.onnx"
    weightless.strip(tmp_path / "whole.onnx", bare)
    assert bare.stat().st_size < 3000
    assert weightless.fill(bare) == sum(weights[name].size for name in ("large", "half", "ones"))
    made = {one.name: numpy_helper.to_array(one) for one in onnx.load(bare).graph.initializer}
    for name, values in weights.items():
        assert made[name].dtype == values.dtype and made[name].shape == values.shape
        np.testing.assert_allclose(made[name].mean(), values.mean(), atol=0.02)
        np.testing.assert_allclose(made[name].std(), values.std(), rtol=0.02)
    np.testing.assert_array_equal(made["ones"], weights["ones"])
    np.testing.assert_array_equal(made["few"], weights["few"])
    (output,) = onnxruntime.InferenceSession(bare).run(None, {"x": np.ones((2, 64), np.float32)})
    assert np.isfinite(output).all()
    assert weightless.fill(tmp_path / "whole.onnx") == 0


def test_a_repository_keeps_the_graph_that_cuda_runs(tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 600])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 600])
    large = numpy_helper.from_array(np.full(600, 2, np.float32), "large")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "large"], ["y"])], "g", [value], [other], [large]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    for name in ("unet/1/model.onnx", "unet/1/model.cuda.onnx", "vae_encoder/1/model.onnx"):
        (tmp_path / "whole" / name).parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, tmp_path / "whole" / name)
    target = tmp_path / "bare"
    weightless.copy_repository(tmp_path / "whole", target)
    copied = sorted(str(path.relative_to(target)) for path in target.rglob("*.onnx"))
    assert copied == ["unet/1/model.cuda.onnx", "vae_encoder/1/model.onnx"]
    assert weightless.fill_repository(target) == 1200
