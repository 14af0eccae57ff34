"""A stage's process called through memory that both see."""

import os
import threading
import time

import numpy as np
import pytest

from triptych.ipc.channel import Exchange, Line, LineFailed


def double(tensors, parameters):
    if "fail" in parameters:
        raise ValueError(parameters["fail"])
    return 2 * tensors["rows"]


@pytest.fixture
def path(tmp_path):
    exchange = Exchange(tmp_path / "stage.line", double, lambda error: f"stage: {error}")
    yield tmp_path / "stage.line"
    exchange.close()


def test_tensors_of_every_size_and_type(path):
    line = Line(path)
    for shape in ((2, 3), (1,), (32, 4, 64, 64), (1, 1)):
        for dtype in (np.float32, np.int32, np.float16):
            rows = (np.arange(np.prod(shape)) % 999).reshape(shape).astype(dtype)
            others = {"other": np.zeros((3, 3), np.int8), "last": np.ones(5)}
            output = line.call({**others, "rows": rows}, {})
            assert output.dtype == dtype
            np.testing.assert_array_equal(output, 2 * rows)
    line.close()


def test_an_error_is_told_and_the_line_goes_on(path):
    line = Line(path)
    with pytest.raises(LineFailed, match="stage: it is so"):
        line.call({"rows": np.ones(3)}, {"fail": "it is so"})
    np.testing.assert_array_equal(line.call({"rows": np.ones(3)}, {}), [2, 2, 2])
    line.close()


def test_an_output_that_is_too_large_is_an_error(tmp_path):
    exchange = Exchange(tmp_path / "x", lambda *_: np.zeros((1000, 1000)), str)
    line = Line(tmp_path / "x")
    with pytest.raises(LineFailed):
        line.call({"rows": np.ones(3)}, {})
    line.close()
    exchange.close()


def test_callers_do_not_see_each_other(path):
    wrong = []

    def caller(number):
        line = Line(path)
        for _ in range(50):
            output = line.call({"rows": np.full((20, 50), number)}, {})
            wrong.extend(output[output != 2 * number])
        line.close()

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stage_that_ends_is_noticed(tmp_path):
    child = os.fork()
    if child == 0:
        Exchange(tmp_path / "x", lambda *_: os._exit(0), str)
        time.sleep(30)
        os._exit(1)
    while not (tmp_path / "x").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    line = Line(tmp_path / "x")
    with pytest.raises(OSError):
        line.call({"rows": np.ones(3)}, {})
    os.waitpid(child, 0)
    with pytest.raises(OSError):
        Line(tmp_path / "x")


def test_memory_is_given_back(path):
    line = Line(path)
    line.call({"rows": np.ones(10)}, {})
    before = len(os.listdir("/proc/self/fd"))
    for size in (1000, 10_000, 1_000_000):
        line.call({"rows": np.ones(size)}, {})
    assert len(os.listdir("/proc/self/fd")) == before
    line.close()


def test_everything_is_done_in_one_thread(tmp_path):
    threads = set()

    def work(tensors, parameters):
        threads.add(threading.get_ident())
        return tensors["rows"]

    exchange = Exchange(tmp_path / "x", work, str)
    lines = [Line(tmp_path / "x") for _ in range(3)]
    for line in lines:
        line.call({"rows": np.ones(3)}, {})
    threads.add(exchange.do(threading.get_ident))
    assert len(threads) == 1 and threading.get_ident() not in threads
    with pytest.raises(ZeroDivisionError):
        exchange.do(lambda: 1 / 0)
    assert exchange.do(lambda: 5) == 5
    exchange.close()
    for line in lines:
        with pytest.raises(OSError):
            line.call({"rows": np.ones(3)}, {})
