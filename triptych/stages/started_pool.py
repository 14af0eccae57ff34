"""An executor that has its threads from the start."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """One of `threads` threads; RuntimeError if they cannot be started.

    So its `submit` never raises: the usual one starts a thread then, which a system without room
    refuses, and has queued the work before.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    all_there = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(all_there.wait)
    except RuntimeError:
        all_there.abort()
        pool.shutdown()
        raise
    all_there.wait()
    return pool
