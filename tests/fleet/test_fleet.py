"""What several servers behind Envoy do together, and what happens when one of them goes."""

import io
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.fleet.conftest import QUEUE
from tests.fleet.load import Load
from tests.gateway.running import wait_for
from tests.server.calls import metrics

CLIENTS = 4
"""At a time for each replica."""
PICTURES = 24
"""In all for each replica."""
TOTAL = ("triptych_images_total", "unet_loop")


def drawn(replicas):
    return [metrics(server.metrics)[TOTAL] for server in replicas.all]


def in_flight(server):
    return metrics(server.metrics)["triptych_images_in_flight", "unet_loop"]


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)))


@pytest.fixture(scope="module")
def alone():
    """What one replica does, once it is known."""
    return {}


@pytest.mark.parametrize(("count", "at_least"), [(1, 1), (2, 1.95), (3, 2.9)])
def test_replicas_add_up(fleet, alone, count, at_least):
    """As many pictures a second as they have together, and none waits longer than with one."""
    with fleet(count) as url:
        Load(url, CLIENTS * count, CLIENTS * count).__enter__().wait()  # connections are made
        began = time.monotonic()
        with Load(url, CLIENTS * count, PICTURES * count) as load:
            load.wait()
        rate = PICTURES * count / (time.monotonic() - began)
    assert load.statuses() == {200: PICTURES * count}
    alone.setdefault("rate", rate), alone.setdefault("p95", load.seconds(95))
    print(f"{count}: {rate:.3f} pictures/s, {rate / alone['rate']:.3f} times one; ", end="")
    print(f"p95 {load.seconds(95):.3f} s, {load.seconds(95) / alone['p95']:.3f} of one's")
    assert rate >= at_least * alone["rate"]
    assert load.seconds(95) <= 1.15 * alone["p95"]


def test_a_killed_replica_loses_no_request_and_takes_its_share_within_10_seconds(fleet, replicas):
    """500 requests, of which those in the replica are drawn again by another; then it is back."""
    with fleet(3) as url:
        with Load(url, 30, 500, num_inference_steps=2) as load:
            load.wait_for(60)
            wait_for(lambda: in_flight(replicas.all[2]) >= 4)
            replicas.kill(2)
            killed = time.monotonic()
            load.wait()
        in_work = [answer for answer in load.answers if answer.begun < killed < answer.ended]
        with ThreadPoolExecutor(6) as pool:
            again = list(pool.map(lambda answer: Load.again(url, answer), in_work))
        with Load(url, 12, num_inference_steps=4) as more:
            replicas.start(2)
            time.sleep(10)
            before = drawn(replicas)
            more.wait_for(60)
            shares = [now - then for now, then in zip(drawn(replicas), before)]
    assert not load.problems() and not more.problems()
    assert len(load.answers) == 500
    assert len(in_work) >= 20
    for answer, file in zip(in_work, again):
        assert (pixels(answer.picture) == pixels(file)).all(), answer.asked
    assert min(shares) >= 0.8 * sum(shares) / 3, shares


def test_a_rolling_restart_fails_no_request(fleet, replicas):
    """Each drains: it ends when it has drawn what it had taken."""
    with fleet(3) as url, Load(url, 12, num_inference_steps=4) as load:
        for number, server in enumerate(replicas.all):
            load.wait_for(20)
            assert server.stop() == 0
            replicas.start(number)
            time.sleep(2)
    assert not load.problems()


def test_overload_uses_every_replicas_room_before_it_is_told(fleet, replicas):
    """Twice as many at once as two queues hold: so many are drawn, others may come again."""
    before = drawn(replicas)
    with fleet(2) as url, Load(url, 4 * QUEUE, 4 * QUEUE, num_inference_steps=3) as load:
        load.wait()
    statuses = load.statuses()
    shares = [now - then for now, then in zip(drawn(replicas), before)]
    assert set(statuses) == {200, 429}, statuses
    assert statuses[200] >= 2 * QUEUE and min(shares[:2]) >= QUEUE
    refused = [answer for answer in load.answers if answer.status == 429]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    full = re.compile(r"the queue is full|images are streamed already")
    assert all(full.search(answer.text) for answer in refused), refused
