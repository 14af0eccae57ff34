"""Runs on fixed buffers, here on the processor: the same code as on CUDA but for the device."""

import weakref

import numpy as np
import pytest
from test_network import config, tensors, write

from triptych.fastdeploy import network, network_files, providers, tuning
from triptych.fastdeploy.accelerators import ConfigError
from triptych.fastdeploy.bound import Bound

BATCHES = (1, 2, 4, 8)


@pytest.fixture
def plain(tmp_path):
    write(tmp_path)
    return network.Network(tmp_path, config())


@pytest.fixture
def bound(tmp_path, plain):
    made = network.Network(tmp_path, config())
    made.bind(BATCHES, ("cpu", 0))
    return made


def drawn(batch, width=2, seed=0):
    random = np.random.RandomState(seed)
    rows = random.standard_normal((batch, 3, width)).astype(np.float32)
    return {"rows": rows, "number": random.randint(0, 9, batch).astype(np.int32)}


def runs(loaded):
    """The batches that the session is run with from now on."""
    session, seen = loaded._session, []

    class Session:
        def run_with_iobinding(self, binding, options):
            seen.append("bound")
            session.run_with_iobinding(binding, options)

        def run(self, names, feeds, options):
            seen.append(len(feeds["rows"]))
            assert options.get_run_config_entry("gpu_graph_id") == "-1"
            return session.run(names, feeds, options)

        def io_binding(self):
            return session.io_binding()

    loaded._session = loaded._bound._session = Session()
    for slot in loaded._bound._slots.values():
        slot._session = loaded._session
    return seen


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(one["sum"], other["sum"])
        assert one["sum"].dtype == other["sum"].dtype


@pytest.mark.parametrize("batch", range(1, 9))
def test_padded_batches_give_the_same_bits(plain, bound, batch):
    for seed in range(3):
        one = [drawn(batch, seed=seed)]
        assert_same(bound.run(one), plain.run(one))


def test_requests_of_several_shapes_and_batches_in_turn(plain, bound):
    requests = [drawn(1 + seed % 3, width=2 + seed % 2, seed=seed) for seed in range(7)]
    for _ in range(2):
        assert_same(bound.run(requests), plain.run(requests))
    assert len(bound._bound._slots) == 2, "one for each width, of 8 rows or fewer"


def test_results_are_the_callers_own(bound):
    (first,) = bound.run([drawn(2, seed=1)])
    before = first["sum"].copy()
    bound.run([drawn(2, seed=2)])
    np.testing.assert_array_equal(first["sum"], before)


def test_larger_batches_and_shapes_too_many_run_without_a_slot(plain, bound, monkeypatch):
    monkeypatch.setattr(Bound, "MOST", 2)
    bound.run([drawn(1, width=2)])
    bound.run([drawn(1, width=3)])
    seen = runs(bound)
    for request in (drawn(9), drawn(1, width=4), drawn(1, width=3)):
        assert_same(bound.run([request]), plain.run([request]))
    assert seen == [9, 1, "bound"]
    assert len(bound._bound._slots) == 2


def test_what_stays_is_written_once(plain, bound):
    stays = np.array(drawn(4)["rows"])
    stays.flags.writeable = False
    wrote = []
    for number in range(3):
        request = {**drawn(4, seed=number), "rows": stays}
        assert_same(bound.run([request]), plain.run([request]))
        (slot,) = bound._bound._slots.values()
        wrote.append(slot._written["rows"] is stays)
    assert wrote == [True] * 3
    # What is written over is noticed.
    assert_same(bound.run([drawn(3, seed=9)]), plain.run([drawn(3, seed=9)]))
    again = {**drawn(4, seed=5), "rows": stays}
    assert_same(bound.run([again]), plain.run([again]))
    both = [{**drawn(1), "rows": stays[:1]}, drawn(2, seed=3)]
    assert_same(bound.run(both), plain.run(both))


def test_what_stays_is_not_taken_for_a_batch_that_begins_with_it(plain, bound):
    stays = np.array(drawn(1)["rows"])
    stays.flags.writeable = False
    first = {**drawn(1), "rows": stays}
    assert_same(bound.run([first]), plain.run([first]))
    both = [first, drawn(1, seed=3)]
    assert_same(bound.run(both), plain.run(both))


def test_a_view_that_cannot_be_written_through_may_still_change(plain, bound):
    below = drawn(2)["rows"]
    view = below.view()
    view.flags.writeable = False
    for value in (1, 2):
        below[:] = value
        request = {**drawn(2), "rows": view}
        assert_same(bound.run([request]), plain.run([request]))


def test_rows_that_failed_are_no_others_padding(tmp_path):
    from test_network import lookup

    loaded = lookup(tmp_path)
    loaded.bind((4,), ("cpu", 0))
    bad = {"ids": np.array([[0, 0, 0]] * 3 + [[0, 5, 0]], np.int32)}
    good = {"ids": np.array([[0, 1, 4]], np.int32)}
    assert isinstance(loaded.run([bad])[0], Exception)
    (result,) = loaded.run([good])
    np.testing.assert_array_equal(result["rows"], [[[0, 1], [2, 3], [8, 9]]])


@pytest.mark.parametrize(("text", "expected"), [("", ()), ("4 1 2", (1, 2, 4))])
def test_graph_batches(text, expected):
    parameters = {"graph_batches": {"string_value": text}} if text else {}
    assert tuning.graph_batches({"parameters": parameters}) == expected


@pytest.mark.parametrize("text", ["0", "two"])
def test_graph_batches_that_cannot_be(text):
    with pytest.raises(ConfigError, match=r"graph_batches: got .*; allowed: "):
        tuning.graph_batches({"parameters": {"graph_batches": {"string_value": text}}})


@pytest.fixture
def cuda(monkeypatch):
    """A machine that seems to have CUDA; what its sessions are made with, and run."""
    made = []
    monkeypatch.setattr(network.providers, "unusable", lambda built_in: {})
    load, sessions = network_files.load, weakref.WeakSet()

    def loaded(folder, chosen, accelerators):
        assert not sessions, "a second one has room only where the first is freed"
        made.append(dict(chosen)[providers.CUDA])
        session = load(folder, [(providers.CPU, {})], accelerators)

        class Session:
            def __getattr__(self, name):
                return getattr(session, name)

            def get_providers(self):
                return [providers.CUDA, providers.CPU]

        one = Session()
        sessions.add(one)
        return one

    monkeypatch.setattr(network_files, "load", loaded)
    return made


def on_cuda():
    gpu = [
        {"name": "onnxruntime", "parameters": {"precision": "ort_fp16"}},
        *(
            {"name": name, "parameters": {"rows": "2 3 5", "number": "2"}}
            for name in ("min_shape", "opt_shape", "max_shape")
        ),
    ]
    return config(
        optimization={"execution_accelerators": {"gpu_execution_accelerator": gpu}},
        parameters={"graph_batches": {"string_value": "1 2 4"}},
    )


def test_graphs_are_recorded_when_it_is_loaded(tmp_path, cuda, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(
        network, "Bound", lambda *arguments: Bound(*arguments[:-1], ("cpu", arguments[-1][1]))
    )
    loaded = network.Network(tmp_path, on_cuda(), 3)
    (options,) = cuda
    assert options["enable_cuda_graph"] == "1" and options["device_id"] == 3
    assert [key[:2] for key in loaded._bound._slots] == [(1, (3, 5)), (2, (3, 5)), (4, (3, 5))]
    assert loaded.provider == f"{providers.CUDA}; in single precision: no model.cuda.onnx"


def test_without_graphs_where_they_cannot_be_recorded(tmp_path, cuda):
    write(tmp_path)
    loaded = network.Network(tmp_path, on_cuda(), 0)  # this machine has no such device
    assert [options.get("enable_cuda_graph") for options in cuda] == ["1", None]
    assert loaded._bound is None
    assert "; no CUDA graphs: " in loaded.provider
    (result,) = loaded.run([tensors(2, fill=1)])
    np.testing.assert_array_equal(result["sum"][:, 0, 0], [1, 2])


def test_no_graphs_where_a_session_has_one_alone(tmp_path, cuda, monkeypatch):
    monkeypatch.setattr(network.onnxruntime, "__version__", "1.17.1")
    write(tmp_path)
    loaded = network.Network(tmp_path, on_cuda(), 0)
    assert [options.get("enable_cuda_graph") for options in cuda] == [None]
    assert loaded.provider.endswith("; no CUDA graphs: ONNX Runtime 1.17.1 has one a session")
    assert tuning.no_graphs("1.18.0") == tuning.no_graphs("2.0.0") == ""
