"""A stage's process called through memory that both see."""

import os
import threading
import time

import numpy as np
import pytest

from triptych.ipc.channel import Channel, ChannelFailed, Listener


def double(tensors, parameters):
    if "fail" in parameters:
        raise ValueError(parameters["fail"])
    return 2 * tensors["rows"]


@pytest.fixture
def path(tmp_path):
    listener = Listener(tmp_path / "stage.channel", double, lambda error: f"stage: {error}")
    yield tmp_path / "stage.channel"
    listener.close()


def test_tensors_of_every_size_and_type(path):
    channel = Channel(path)
    for shape in ((2, 3), (1,), (32, 4, 64, 64), (1, 1)):
        for dtype in (np.float32, np.int32, np.float16):
            rows = (np.arange(np.prod(shape)) % 999).reshape(shape).astype(dtype)
            others = {"other": np.zeros((3, 3), np.int8), "last": np.ones(5)}
            output = channel.call({**others, "rows": rows}, {})
            assert output.dtype == dtype
            np.testing.assert_array_equal(output, 2 * rows)
    channel.close()


def test_an_error_is_told_and_the_line_goes_on(path):
    channel = Channel(path)
    with pytest.raises(ChannelFailed, match="stage: it is so"):
        channel.call({"rows": np.ones(3)}, {"fail": "it is so"})
    np.testing.assert_array_equal(channel.call({"rows": np.ones(3)}, {}), [2, 2, 2])
    channel.close()


def test_an_output_that_is_too_large_is_an_error(tmp_path):
    listener = Listener(tmp_path / "x", lambda *_: np.zeros((1000, 1000)), str)
    channel = Channel(tmp_path / "x")
    with pytest.raises(ChannelFailed):
        channel.call({"rows": np.ones(3)}, {})
    channel.close()
    listener.close()


def test_callers_do_not_see_each_other(path):
    wrong = []

    def caller(number):
        channel = Channel(path)
        for _ in range(50):
            output = channel.call({"rows": np.full((20, 50), number)}, {})
            wrong.extend(output[output != 2 * number])
        channel.close()

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stage_that_ends_is_noticed(tmp_path):
    child = os.fork()
    if child == 0:
        Listener(tmp_path / "x", lambda *_: os._exit(0), str)
        time.sleep(30)
        os._exit(1)
    while not (tmp_path / "x").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    channel = Channel(tmp_path / "x")
    with pytest.raises(OSError):
        channel.call({"rows": np.ones(3)}, {})
    os.waitpid(child, 0)
    with pytest.raises(OSError):
        Channel(tmp_path / "x")


def test_memory_is_given_back(path):
    channel = Channel(path)
    channel.call({"rows": np.ones(10)}, {})
    before = len(os.listdir("/proc/self/fd"))
    for size in (1000, 10_000, 1_000_000):
        channel.call({"rows": np.ones(size)}, {})
    assert len(os.listdir("/proc/self/fd")) == before
    channel.close()


def test_everything_is_done_in_one_thread(tmp_path):
    threads = set()

    def work(tensors, parameters):
        threads.add(threading.get_ident())
        return tensors["rows"]

    listener = Listener(tmp_path / "x", work, str)
    channels = [Channel(tmp_path / "x") for _ in range(3)]
    for channel in channels:
        channel.call({"rows": np.ones(3)}, {})
    threads.add(listener.do(threading.get_ident))
    assert len(threads) == 1 and threading.get_ident() not in threads
    with pytest.raises(ZeroDivisionError):
        listener.do(lambda: 1 / 0)
    assert listener.do(lambda: 5) == 5
    listener.close()
    for channel in channels:
        with pytest.raises(OSError):
            channel.call({"rows": np.ones(3)}, {})
