import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from triptych import onnx_weights

WEIGHTS = {"a.weight": (3, 5), "scalar": (), "é": (2, 0, 7), "ids": (300,)}


def model():
    arrays = {name: np.zeros(shape, np.float16) for name, shape in WEIGHTS.items()}
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a.weight"], ["out"])],
        "graph",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT16, [3, 5])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph)


def test_names_and_shapes_of_all_weights(tmp_path):
    onnx.save(model(), tmp_path / "model.onnx")
    assert onnx_weights.shapes(tmp_path / "model.onnx") == WEIGHTS


def test_weights_in_a_file_of_their_own(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="data", size_threshold=0)
    assert onnx_weights.shapes(path) == WEIGHTS


@given(st.binary(max_size=60) | st.integers(0, 400).map(lambda n: model().SerializeToString()[:n]))
def test_anything_else_has_none_or_is_an_error(tmp_path_factory, contents):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(contents)
    try:
        found = onnx_weights.shapes(path)
    except ValueError:
        return
    assert all(isinstance(shape, tuple) for shape in found.values())


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        onnx_weights.shapes(tmp_path / "model.onnx")
