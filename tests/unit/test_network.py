import numpy as np
import onnx
import pytest
from onnx import TensorProto as Types
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from triptych.errors import InvalidRequest, ModelFileError
from triptych.fastdeploy import network, network_files
from triptych.fastdeploy.accelerators import Accelerators, ConfigError

NUMBERS = {"TYPE_FP32": "float32", "TYPE_FP16": "float16", "TYPE_INT32": "int32"}


def write(folder, first=Types.FLOAT, second=Types.INT64, result=Types.FLOAT):
    """model.onnx: sum = rows [batch, 3, width] + the number of each row."""
    nodes = [
        helper.make_node("Cast", ["rows"], ["floats"], to=Types.FLOAT),
        helper.make_node("Cast", ["number"], ["float_number"], to=Types.FLOAT),
        helper.make_node("Unsqueeze", ["float_number", "axes"], ["column"]),
        helper.make_node("Add", ["floats", "column"], ["float_sum"]),
        helper.make_node("Cast", ["float_sum"], ["sum"], to=result),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info("rows", first, ["batch", 3, "width"]),
            helper.make_tensor_value_info("number", second, ["batch"]),
        ],
        [helper.make_tensor_value_info("sum", result, ["batch", 3, "width"])],
        [helper.make_tensor("axes", Types.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")


def config(rows="TYPE_FP32", number="TYPE_INT32", result="TYPE_FP32", **more):
    return {
        "input": [{"name": "rows", "data_type": rows}, {"name": "number", "data_type": number}],
        "output": [{"name": "sum", "data_type": result}],
        **more,
    }


def tensors(batch, width=2, fill=0):
    return {
        "rows": np.full((batch, 3, width), fill, np.float32),
        "number": np.arange(batch, dtype=np.int32),
    }


@pytest.fixture
def loaded(tmp_path):
    write(tmp_path)
    return network.Network(tmp_path, config())


def test_requests_of_a_batch_get_their_own_rows(loaded):
    results = loaded.run([tensors(1, fill=10), tensors(3, fill=20), tensors(2, fill=30)])
    assert [result["sum"].shape for result in results] == [(1, 3, 2), (3, 3, 2), (2, 3, 2)]
    np.testing.assert_array_equal(results[1]["sum"][:, 0, 0], [20, 21, 22])
    np.testing.assert_array_equal(results[2]["sum"][:, 0, 0], [30, 31])


def test_like_requests_share_a_run_and_others_have_their_own(loaded):
    runs = []
    run = loaded._session.run

    class Session:
        def run(self, names, feeds):
            runs.append(feeds["rows"].shape)
            return run(names, feeds)

    loaded._session = Session()
    widths = (2, 5, 2, 5, 7)
    results = loaded.run([tensors(1, width) for width in widths])
    assert [result["sum"].shape[2] for result in results] == list(widths)
    assert sorted(runs) == [(1, 3, 7), (2, 3, 2), (2, 3, 5)]


def test_more_rows_than_max_rows_run_one_after_the_other(tmp_path):
    write(tmp_path)
    most = {"max_rows": {"string_value": "2"}, "graph_batches": {"string_value": "1 2 4"}}
    loaded = network.Network(tmp_path, config(parameters=most))
    runs, run = [], loaded._session.run

    class Session:
        def run(self, names, feeds):
            runs.append(len(feeds["rows"]))
            return run(names, feeds)

    loaded._session = Session()
    results = loaded.run([tensors(3, fill=10), tensors(2, fill=20)])
    assert runs == [2, 2, 1]
    np.testing.assert_array_equal(results[0]["sum"][:, 0, 0], [10, 11, 12])
    np.testing.assert_array_equal(results[1]["sum"][:, 0, 0], [20, 21])


@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_max_rows_is_a_number(tmp_path, value):
    write(tmp_path)
    most = {"max_rows": {"string_value": value}}
    with pytest.raises(ConfigError, match=f"max_rows: got '{value}'; allowed: a whole number"):
        network.Network(tmp_path, config(parameters=most))


@pytest.mark.parametrize("first", [Types.FLOAT, Types.FLOAT16])
@pytest.mark.parametrize("second", [Types.INT64, Types.INT32])
@pytest.mark.parametrize("declared", ["TYPE_FP32", "TYPE_FP16"])
def test_types_of_the_graph_and_of_the_config_may_differ(tmp_path, first, second, declared):
    write(tmp_path, first, second, result=first)
    loaded = network.Network(tmp_path, config(result=declared))
    (result,) = loaded.run([tensors(2, fill=1)])
    assert result["sum"].dtype == NUMBERS[declared]
    np.testing.assert_array_equal(result["sum"][:, 0, 0], [1, 2])


def test_a_request_that_does_not_fit_fails_alone(loaded):
    wrong = {**tensors(1), "rows": np.zeros((1, 4, 2), np.float32)}
    empty = {**tensors(1), "rows": np.zeros((1, 3, 0), np.float32)}
    flat = {**tensors(1), "rows": np.zeros((1, 3), np.float32)}
    without = {"rows": tensors(1)["rows"]}
    results = loaded.run([tensors(1), wrong, empty, flat, without])
    assert results[0]["sum"].shape == (1, 3, 2)
    assert all(isinstance(error, InvalidRequest) for error in results[1:])
    assert str(results[1]).startswith("rows: got [1, 4, 2]; allowed: shape [-1, 3, -1]")
    assert str(results[4]).startswith("number: got null")


def test_a_failing_run_fails_the_requests_in_it(loaded):
    class Session:
        def run(self, names, feeds):
            raise RuntimeError("out of memory")

    loaded._session = Session()
    results = loaded.run([tensors(1), tensors(2)])
    assert [str(error) for error in results] == ["out of memory"] * 2


def lookup(folder):
    """model.onnx: rows [batch, tokens, 2] of a table with 5 rows, plus 3 positions."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"]),
        helper.make_node("Add", ["found", "places"], ["rows"]),
    ]
    table = helper.make_tensor("table", Types.FLOAT, [5, 2], range(10))
    places = helper.make_tensor("places", Types.FLOAT, [1, 3, 2], [0] * 6)
    ids = helper.make_tensor_value_info("ids", Types.INT32, ["batch", "tokens"])
    rows = helper.make_tensor_value_info("rows", Types.FLOAT, ["batch", "tokens", 2])
    graph = helper.make_graph(nodes, "lookup", [ids], [rows], [table, places])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    declared = {
        "input": [{"name": "ids", "data_type": "TYPE_INT32"}],
        "output": [{"name": "rows", "data_type": "TYPE_FP32"}],
    }
    return network.Network(folder, declared)


@pytest.mark.parametrize("bad", [[0, 5, 1], [0, 2**31 - 1, 0], [0] * 4])
def test_what_the_network_has_no_weights_for_is_the_clients_error_and_harms_no_other(tmp_path, bad):
    loaded = lookup(tmp_path)
    good = {"ids": np.array([[0, 1, 4]], np.int32)}
    results = loaded.run([good, {"ids": np.array([bad], np.int32)}, good])
    for result in (results[0], results[2]):
        np.testing.assert_array_equal(result["rows"], [[[0, 1], [2, 3], [8, 9]]])
    assert isinstance(results[1], InvalidRequest)
    shape = [1, len(bad)]
    assert str(results[1]).startswith(f"ids: got {shape}; allowed: values and sizes that the")


@pytest.mark.parametrize("reason", ["Failed to allocate memory", "CUDA failure 700"])
def test_a_network_without_memory_or_device_is_no_clients_error(loaded, reason):
    class Session:
        def run(self, names, feeds):
            raise ort_errors.Fail(f"[ONNXRuntimeError] : 1 : FAIL : {reason}")

    loaded._session = Session()
    (error,) = loaded.run([tensors(1)])
    assert isinstance(error, ort_errors.Fail)


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"model\.onnx: no such file; .*export_stages"):
        network.Network(tmp_path, config())


def test_only_paddles_file(tmp_path):
    (tmp_path / "model.pdmodel").touch()
    with pytest.raises(ModelFileError, match=r"this server runs ONNX.*export_stages"):
        network.Network(tmp_path, config())


@pytest.mark.parametrize("contents", [b"", b"not a network"])
def test_damaged_file(tmp_path, contents):
    (tmp_path / "model.onnx").write_bytes(contents)
    with pytest.raises(ModelFileError, match=r"model\.onnx: cannot be loaded.*export_stages"):
        network.Network(tmp_path, config())


def test_a_config_with_other_tensors(tmp_path):
    write(tmp_path)
    other = config()
    other["input"][0]["name"] = "sample"
    with pytest.raises(ConfigError, match=r"inputs sample, number, model\.onnx rows, number"):
        network.Network(tmp_path, other)
    with pytest.raises(ConfigError, match="outputs total"):
        network.Network(tmp_path, {**config(), "output": [{"name": "total", "data_type": "?"}]})
    missing = {**config(), "input": config()["input"][:1]}
    with pytest.raises(ConfigError, match="inputs rows, "):
        network.Network(tmp_path, missing)


def test_a_config_with_types_that_cannot_be(tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigError, match="sum is TYPE_STRING; allowed: TYPE_FP32, "):
        network.Network(tmp_path, config(result="TYPE_STRING"))


def test_unknown_accelerator(tmp_path):
    write(tmp_path)
    asked = {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "poros"}]}}
    with pytest.raises(ConfigError, match=r"write onnxruntime, which runs model\.onnx"):
        network.Network(tmp_path, config(optimization=asked))


def test_cpu_threads(tmp_path):
    write(tmp_path)
    entry = {"name": "onnxruntime", "parameters": {"cpu_threads": "3"}}
    asked = {"execution_accelerators": {"cpu_execution_accelerator": [entry]}}
    loaded = network.Network(tmp_path, config(optimization=asked))
    assert loaded._session.get_session_options().intra_op_num_threads == 3
    assert loaded.provider.startswith("CPUExecutionProvider")


def test_shapes_for_tensorrt_must_be_the_graphs(loaded):
    def check(**shapes):
        network.check_profiles(Accelerators(shapes={"opt_shape": shapes}), loaded._shapes)

    check(rows=(2, 3, 64), number=(2,))
    with pytest.raises(ConfigError, match=r"rows: got '2 4 64'; model\.onnx has \[-1, 3, -1\]"):
        check(rows=(2, 4, 64))
    with pytest.raises(ConfigError, match="no input row; allowed: rows, number"):
        check(row=(2, 3, 64))


@pytest.mark.parametrize(
    ("provider", "fp16", "there", "file"),
    [
        ("CUDAExecutionProvider", True, True, "model.cuda.onnx"),
        ("CUDAExecutionProvider", True, False, "model.onnx"),
        ("CUDAExecutionProvider", False, True, "model.onnx"),
        ("TensorrtExecutionProvider", True, True, "model.onnx"),
        ("CPUExecutionProvider", True, True, "model.onnx"),
    ],
)
def test_the_fused_file_is_for_cuda_in_half_precision(tmp_path, provider, fp16, there, file):
    (tmp_path / "model.onnx").touch()
    if there:
        (tmp_path / "model.cuda.onnx").touch()
    assert network_files.which(tmp_path, provider, fp16) == tmp_path / file


def test_sizes_that_tensorrts_engine_was_not_built_for_run_without_it(tmp_path, monkeypatch):
    write(tmp_path)
    profile = {"min_shape": {"rows": (1, 3, 2)}, "max_shape": {"rows": (4, 3, 4)}}
    loaded = network.Network(tmp_path, config())
    loaded._accelerators, loaded._on_engine = Accelerators(shapes=profile), True
    usual, used = network.sessions.compute, []

    def compute(session, *rest):
        used.append(session is loaded._session)
        return usual(session, *rest)

    monkeypatch.setattr(network.sessions, "compute", compute)
    sizes = (1, 2), (4, 4), (1, 1), (5, 2), (1, 5)
    for batch, width in sizes:
        (result,) = loaded.run([tensors(batch, width, fill=7)])
        assert result["sum"].shape == (batch, 3, width) and result["sum"][0, 0, 0] == 7
    assert used == [True, True, False, False, False]


def test_the_first_run_with_tensorrt_is_on_its_engine(tmp_path, monkeypatch):
    write(tmp_path)
    cpu = "CPUExecutionProvider"
    shapes = {"rows": (2, 3, 2), "number": (2,)}
    accelerators = Accelerators(
        shapes=dict.fromkeys(("min_shape", "opt_shape", "max_shape"), shapes)
    )
    monkeypatch.setattr(network, "parse", lambda _: accelerators)
    monkeypatch.setattr(network.providers, "choose", lambda *_: ([(cpu, {})], cpu))
    monkeypatch.setattr(network.providers, "TENSORRT", cpu)
    monkeypatch.setattr(network.providers, "CPU", "another")
    (result,) = network.Network(tmp_path, config()).run([tensors(2, fill=7)])
    assert result["sum"][1, 0, 0] == 8


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_what_does_not_load_is_passed_over_with_all_that_was_meant_for_it(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(network.providers, "unusable", lambda _: {})
    entry = {"name": "onnxruntime", "parameters": {"cpu_threads": "3"}}
    asked = {"execution_accelerators": {"cpu_execution_accelerator": [entry]}}
    loaded = network.Network(tmp_path, config(optimization=asked))
    assert loaded.provider == (
        "CPUExecutionProvider in single precision (no Tensorrt: it does not load here; "
        "no CUDA: it does not load here)"
    )
    assert loaded._session.get_session_options().intra_op_num_threads == 3
    assert [name for name, _ in loaded._chosen] == ["CPUExecutionProvider"]
