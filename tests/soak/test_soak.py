"""A server that has been at work for long: every answer right, and nothing that grows.

MINUTES in the environment is how long; 20 by default. Under 10, growth is shown and not judged:
allocators take longer to come to rest.
"""

import json
import os
import time

import numpy as np
import pytest

from tests.server.calls import Calls, request
from tests.server.processes import Processes, files, resident, threads
from tests.soak.traffic import Traffic
from triptych.server.running import RunningServer

MINUTES = float(os.environ.get("MINUTES", "20"))
WARM_UP = 0.25
"""The part of the time after which nothing may grow any more."""

PICTURES = 2000 / 20
BAD = 10_000 / 20
"""A minute."""

MEGABYTE = 1e6


@pytest.fixture(scope="module")
def watched(repository, tmp_path_factory):
    """What a server took of the machine, every 5 s, and what its clients got."""
    log = tmp_path_factory.mktemp("soak") / "server.log"
    with RunningServer(repository, log) as server:
        calls = Calls(server.grpc)
        channels = calls.loop_inputs(request())["prompt_embeds"].shape[2]
        calls.close()
        traffic = Traffic(server.grpc, server.http, channels)
        processes = Processes(server.process.pid)
        begun = time.monotonic()
        samples = []
        traffic.start(bad_a_second=1.05 * BAD / 60)
        try:
            while time.monotonic() < begun + 60 * MINUTES and not traffic.wrong:
                time.sleep(5)
                taken = {
                    name: (resident(pid), threads(pid), files(pid))
                    for name, pid in processes.all().items()
                }
                shared = processes.shared_memory()
                samples.append((time.monotonic() - begun, taken, shared))
        finally:
            traffic.end()
        log.with_name("samples.json").write_text(json.dumps(samples))
        yield traffic, samples


def test_every_request_is_answered_once_and_right(watched):
    traffic, _ = watched
    print("\n", dict(traffic.counts))
    assert not traffic.wrong, traffic.wrong[:10]
    assert traffic.counts["pictures"] >= PICTURES * MINUTES
    assert traffic.counts["refused"] + traffic.counts["odd, but served"] >= 0.95 * BAD * MINUTES
    assert traffic.counts["given up"] > 10 * MINUTES
    assert traffic.counts["connection closed"] > 5 * MINUTES


def test_nothing_grows(watched):
    _, samples = watched
    warm = [sample for sample in samples if sample[0] > 60 * MINUTES * WARM_UP]
    minutes = np.array([seconds / 60 for seconds, _, _ in warm])
    names = list(warm[0][1])
    assert all(set(taken) == set(names) for _, taken, _ in warm), "processes came or went"
    slopes, grown = {}, {}
    print(f"\n{'process':20} {'MB':>7} {'MB/min':>7}  threads   files")
    for name in names:
        size, running, opened = np.array([taken[name] for _, taken, _ in warm]).T
        slopes[name] = np.polyfit(minutes, size / MEGABYTE, 1)[0]
        print(
            f"{name:20} {size[-1] / MEGABYTE:7.1f} {slopes[name]:7.3f}"
            f"  {running[0]:3} {running[-1]:3}  {opened[0]:3} {opened[-1]:3}"
        )
        grown[name] = ends(running), ends(opened)
    regions, size = np.array([shared for _, _, shared in warm]).T
    print(f"shared memory: {regions[0]} to {regions[-1]} regions, {size[0]} to {size[-1]} bytes")
    assert max(running for running, _ in grown.values()) <= 3, grown
    # A connection that its client closed stays until its picture is done.
    assert max(opened for _, opened in grown.values()) <= 10, grown
    # It grows by whole MiB, to what the most requests at once have needed.
    assert ends(regions) <= 0 and ends(size) <= 2 * 2**20
    if MINUTES >= 10:
        assert max(slopes.values()) < 1, slopes


def ends(numbers):
    """By how much the last quarter's median is over the first quarter's."""
    quarter = max(1, len(numbers) // 4)
    return np.median(numbers[-quarter:]) - np.median(numbers[:quarter])
