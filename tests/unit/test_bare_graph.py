"""A graph without its large weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from triptych_export.bare_graph import LARGE, BareGraph

SMALL = np.arange(4, dtype=np.float32)
LARGE_ONE = np.linspace(-1, 1, LARGE, dtype=np.float32).reshape(256, -1)
PLACES = np.arange(LARGE, dtype=np.int64)


@pytest.fixture(params=["in one file", "in two"])
def path(request, tmp_path):
    weights = {"small": SMALL, "large": LARGE_ONE, "places": PLACES}
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    node = helper.make_node("Identity", ["large"], ["out"])
    model = helper.make_model(helper.make_graph([node], "graph", [], [output], initializers))
    file = tmp_path / "model.onnx"
    onnx.save_model(model, str(file), save_as_external_data=request.param == "in two")
    return file


def weights_of(model):
    return {weight.name: weight for weight in model.graph.initializer}


def test_large_weights_are_left_out_and_come_back_in_half_precision(path):
    bare = BareGraph(path)
    model = bare.graph()
    weights = weights_of(model)
    assert model.ByteSize() < 1000 + PLACES.nbytes
    assert list(weights["large"].dims) == list(LARGE_ONE.shape)
    with pytest.raises(onnx.checker.ValidationError):
        numpy_helper.to_array(weights["large"])
    for name, values in (("small", SMALL), ("places", PLACES)):
        np.testing.assert_array_equal(numpy_helper.to_array(weights[name]), values)
    bare.in_half(model)
    assert weights["large"].data_type == TensorProto.FLOAT16
    bare.fill(model)
    filled = numpy_helper.to_array(weights_of(model)["large"])
    np.testing.assert_array_equal(filled, LARGE_ONE.astype(np.float16))
    assert weights_of(model)["small"].data_type == TensorProto.FLOAT


def test_a_graph_may_be_taken_twice(path):
    bare = BareGraph(path)
    del bare.graph().graph.node[:]
    assert len(bare.graph().graph.node) == 1
