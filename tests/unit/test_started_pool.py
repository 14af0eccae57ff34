"""An executor whose threads are there before the first piece of work."""

import threading

import pytest

from triptych.stages.started_pool import started_pool


def own(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_its_threads_are_there_from_the_start():
    pool = started_pool(3, "reading")
    assert len(own("reading")) == 3
    assert pool.submit(threading.current_thread).result() in own("reading")
    pool.shutdown()
    assert own("reading") == []


def test_where_one_cannot_start_none_is_left(monkeypatch):
    start = threading.Thread.start

    def refuse_the_third(thread):
        if len(own("drawing")) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        started_pool(3, "drawing")
    assert own("drawing") == []
