"""A stage's process called through memory that both see."""

import glob
import os
import socket
import threading
import time

import numpy as np
import pytest

from triptych.ipc import channel as channels
from triptych.ipc.activity import VARIABLE
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


def numbered(folder, *numbers):
    """Listeners of the model `stage`, each of which answers with its number."""
    return [
        Listener(folder / f"stage.{n}.channel", lambda *_, n=n: np.array([n]), str) for n in numbers
    ]


def answers(count):
    """What the listeners say that `connect` finds for the numbers 0 to `count`."""
    found = [channels.connect("stage", number) for number in range(count)]
    said = [int(one.call({"rows": np.ones(64)}, {})[0]) for one in found]
    for one in found:
        one.close()
    return said


def test_callers_are_spread_over_those_that_listen(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert channels.connect("stage") is None and channels.socket_path("stage") is None
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert channels.connect("stage") is None
    assert channels.socket_path("stage") == tmp_path / f"stage.{os.getpid()}.channel"
    listeners = [*numbered(tmp_path, 1, 2, 3), Listener(tmp_path / "other.4.channel", double, str)]
    assert answers(5) == [1, 2, 3, 1, 2]
    listeners[1].close()
    assert answers(4) == [1, 3, 1, 3]
    for one in (listeners[0], *listeners[2:]):
        one.close()
    assert list(tmp_path.iterdir()) == []


def test_the_socket_of_a_process_that_was_killed_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    child = os.fork()
    if child == 0:
        numbered(tmp_path, 1)
        os._exit(0)
    os.waitpid(child, 0)
    assert channels.connect("stage") is None
    (living,) = numbered(tmp_path, 2)
    assert answers(3) == [2, 2, 2]
    living.close()


def test_a_folder_with_a_long_name(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    (listener,) = numbered(folder, 7)
    assert answers(1) == [7]
    listener.close()
    open_files = map(os.path.realpath, glob.glob("/proc/self/fd/*"))
    assert str(folder) not in open_files, "it was opened to reach the socket in it"


def test_a_message_that_makes_no_sense_ends_that_caller_alone(path):
    good = Channel(path)
    bad = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    bad.connect(str(path))
    bad.send(b"{")
    assert bad.recv(10) == b""
    bad.close()
    np.testing.assert_array_equal(good.call({"rows": np.ones(3)}, {}), [2, 2, 2])
    good.close()
