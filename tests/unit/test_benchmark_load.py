"""The benchmark's clients: who sends what, when."""

import threading
import time

import pytest

from benchmarks import load


def test_every_request_is_sent_once_by_as_many_clients_as_asked():
    seen, together, most = [], 0, 0
    lock = threading.Lock()

    def draw(request):
        nonlocal together, most
        with lock:
            seen.append(request)
            together += 1
            most = max(most, together)
        time.sleep(0.02)
        with lock:
            together -= 1

    run = load.closed(draw, [str(n) for n in range(12)], clients=3)
    assert sorted(seen, key=int) == [str(n) for n in range(12)]
    assert most == 3
    assert len(run.latencies) == 12 and min(run.latencies) >= 0.02
    assert run.seconds >= 0.08
    assert run.per_second == 12 / run.seconds


def test_arrivals_wait_for_nobody_and_are_timed_from_when_they_should_come():
    begun = time.perf_counter()
    starts = {}

    def draw(request):
        starts[request] = time.perf_counter() - begun
        time.sleep(0.2)

    run = load.arriving(draw, ["a", "b", "c"], [0.0, 0.05, 0.1])
    assert starts["b"] >= 0.05 and 0.1 <= starts["c"] < starts["a"] + 0.2
    assert len(run.latencies) == 3 and min(run.latencies) >= 0.2


def test_a_failing_request_fails_the_run():
    with pytest.raises(ZeroDivisionError):
        load.closed(lambda request: 1 / 0, ["a", "b"], clients=2)


def test_poisson_arrivals_have_their_rate_and_are_the_same_for_a_seed():
    times = load.poisson(4000, 5.0, seed=1)
    assert times == load.poisson(4000, 5.0, seed=1) != load.poisson(4000, 5.0, seed=2)
    assert times == sorted(times)
    assert times[-1] / 4000 == pytest.approx(1 / 5.0, rel=0.1)
    gaps = [b - a for a, b in zip(times, times[1:])]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)
