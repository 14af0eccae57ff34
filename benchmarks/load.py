"""Requests sent as clients send them, and what came of it."""

from __future__ import annotations

import itertools
import queue
import random
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Run:
    """Seconds that each request took, in the order of answers, and all of them together.

    `calls` and `rows` of the UNet, where they are counted.
    """

    latencies: list[float]
    seconds: float
    calls: float = 0
    rows: float = 0

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds


def closed(draw: Callable[[str], object], requests: Sequence[str], clients: int) -> Run:
    """As many clients, each sending its next request when it has the last one's answer."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)

    def client(latencies: list[float]) -> None:
        while True:
            try:
                request = waiting.get_nowait()
            except queue.Empty:
                return
            begun = time.perf_counter()
            draw(request)
            latencies.append(time.perf_counter() - begun)

    return _run([client] * clients)


def arriving(draw: Callable[[str], object], requests: Sequence[str], times: Sequence[float]) -> Run:
    """Each request sent at its time, in seconds from the start, whatever is under way."""
    start = time.perf_counter()

    def one(request: str, at: float) -> Callable[[list[float]], None]:
        def client(latencies: list[float]) -> None:
            time.sleep(max(0.0, start + at - time.perf_counter()))
            draw(request)
            latencies.append(time.perf_counter() - start - at)

        return client

    return _run([one(request, at) for request, at in zip(requests, times)])


def poisson(count: int, per_second: float, seed: int) -> list[float]:
    """Times of `count` independent arrivals, `per_second` of them on average."""
    drawn = random.Random(seed)
    return list(itertools.accumulate(drawn.expovariate(per_second) for _ in range(count)))


def calls_and_rows(metrics: str) -> np.ndarray:
    """The UNet's calls and rows until now, by the server's metrics at HOST:PORT."""
    with urllib.request.urlopen(f"http://{metrics}/metrics") as reply:
        page = reply.read().decode()
    names = ("triptych_unet_calls_total", "triptych_unet_rows_total")
    found = [re.search(rf"^{name}\{{.*\}} (\S+)", page, re.MULTILINE) for name in names]
    return np.array([float(one.group(1)) if one else 0.0 for one in found])


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def _run(clients: Sequence[Callable[[list[float]], None]]) -> Run:
    latencies: list[float] = []
    errors: list[BaseException] = []

    def guarded(client: Callable[[list[float]], None]) -> None:
        try:
            client(latencies)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(client,)) for client in clients]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Run(latencies, time.perf_counter() - begun)
