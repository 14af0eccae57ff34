"""A network between Triton's requests, what is kept between them, and ONNX Runtime."""

import importlib
import json

import numpy as np
import onnx
import pb_utils_fake as fake
import pytest
from onnx import TensorProto, helper

from triptych.ipc import channel
from triptych.ipc.activity import VARIABLE


@pytest.fixture
def network_files(tmp_path, monkeypatch):
    """Makes a network that adds a row's three numbers to its bias, in ONNX Runtime."""
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["rows", "bias"], ["sum"])],
        "adds",
        [
            helper.make_tensor_value_info("rows", floats, ["n", 3]),
            helper.make_tensor_value_info("bias", floats, ["n", 3]),
        ],
        [helper.make_tensor_value_info("sum", floats, ["n", 3])],
    )
    opset = helper.make_opsetid("", 16)
    (tmp_path / "1").mkdir()
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, str(tmp_path / "1" / "model.onnx"))
    fake.install(monkeypatch, fake.module("24.10", None))
    triton = importlib.import_module("triptych.stages.triton")
    served = importlib.import_module("triptych.stages.network")
    arguments = fake.initialize_args(tmp_path, "adds", ("rows", "bias"))

    def make(**parameters):
        config = {
            "input": [{"name": name, "data_type": "TYPE_FP32"} for name in ("rows", "bias")],
            "output": [{"name": "sum", "data_type": "TYPE_FP32"}],
            "parameters": {name: {"string_value": value} for name, value in parameters.items()},
        }
        return served.ServedNetwork(triton.Model({**arguments, "model_config": json.dumps(config)}))

    return make


@pytest.fixture
def network(network_files):
    made = network_files()
    yield made
    made.close()


def request(rows, width=3, **parameters):
    arrays = {"rows": np.full((1, width), rows, np.float32), "bias": np.ones((1, 3), np.float32)}
    made = fake.Request(**arrays)
    made.own_parameters = parameters
    return made


def test_each_request_has_its_own_answer(network):
    requests = [
        request(1),
        request(2, width=4),
        request(3, keep_rows="a", kept_rows="a"),
        request(4, kept_rows="nothing"),
        request(5, keep_rows=65 * "n", kept_rows=65 * "n"),
    ]
    one, wide, three, unknown, long = network.execute(requests)
    assert one.tensors["sum"].tolist() == [[2, 2, 2]]
    assert three.tensors["sum"].tolist() == [[4, 4, 4]]
    for response, says in ((wide, "rows"), (unknown, "kept_rows"), (long, "keep_rows")):
        assert response.error().message().startswith(f"adds: {says}: got ")
        assert response.error().code() == fake.Error.INVALID_ARG
    (again,) = network.execute([request(0, width=1, kept_rows="a")])
    assert again.tensors["sum"].tolist() == [[4, 4, 4]]


@pytest.mark.parametrize(
    "said",
    [
        *("?", "[]", "[1]", '[[["a", 1]], []]', "[[], [1]]", '[[["a", 0, 0, true]], []]'),
        *('[[["a", Infinity, 0, true]], []]', '[[["a", 1, 0, 1]], []]', '[[["", 1, 0, true]], []]'),
    ],
)
def test_images_of_deep_features_that_are_none(network, said):
    (refused,) = network.execute([request(1, deep_cache=said)])
    assert refused.error().message().startswith("adds: deep_cache: got ")
    assert refused.error().code() == fake.Error.INVALID_ARG


def test_deep_features_fail_alone_where_there_is_no_graph_for_them_or_with_loras(network):
    asked = json.dumps([[["a", 1, 0, True]], []])
    loras = json.dumps([["ink", 1.0, "1"]])
    none, well, both = network.execute(
        [request(1, deep_cache=asked), request(2), request(3, deep_cache=asked, loras=loras)]
    )
    assert well.tensors["sum"].tolist() == [[3, 3, 3]]
    assert "cache_interval: got 'over 1'; allowed: 1: this model has no shallow.onnx" in (
        none.error().message()
    )
    assert "cache_interval: got 'over 1'; allowed: 1 with LoRAs" in both.error().message()


def test_what_the_network_refuses_is_not_kept(network):
    (refused,) = network.execute([request(1, width=7, keep_rows="a", kept_rows="a")])
    assert refused.error().message().startswith("adds: rows: got ")
    (unknown,) = network.execute([request(1, kept_rows="a")])
    assert unknown.error().message().startswith("adds: kept_rows: got ")


@pytest.mark.parametrize("before", [False, True])
def test_a_call_that_came_while_it_loaded_is_answered(network_files, monkeypatch, tmp_path, before):
    """The thread that answers is quicker than the one that loads."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    usual, answers = channel.Listener.do, []

    def call():
        caller = channel.connect("adds")
        row = np.ones((1, 3), np.float32)
        answers.append(caller.call({"rows": row, "bias": row}, {}).tolist())
        caller.close()

    def waited_for(listener, job):
        if before:
            call()
        usual(listener, job)
        if not before:
            call()

    monkeypatch.setattr(channel.Listener, "do", waited_for)
    made = network_files(channel="true")
    assert answers == [[[2, 2, 2]]]
    monkeypatch.setattr(channel.Listener, "do", usual)
    made.close()
