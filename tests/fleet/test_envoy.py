"""Envoy and the client with stand-ins for servers: who is asked, and what is asked again."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml
from http_fake import serving

from tests import dashboard
from tests.fleet.conftest import gateway
from tests.fleet.envoy import ROOT, Envoy
from tests.fleet.load import Load
from tests.fleet.service import Service
from tests.fleet.stand_ins import AS_SHIPPED, QUEUE, StandIns
from tests.gateway.fake_triton import FakeTriton
from tests.gateway.running import wait_for
from tests.gateway.test_access_log import FOX, TRACEPARENT
from triptych.client import Client, NotThere, Overloaded, Picture

COMPOSE = ROOT / "docker" / "compose.yaml"


@pytest.fixture
def envoy(stand_ins, tmp_path):
    with Envoy(tmp_path, stand_ins.addresses()) as running:
        wait_for(lambda: healthy(running) == 2, 60)
        yield running


def healthy(envoy):
    return envoy.stats()["membership_healthy"]


def draw(client, count, **settings):
    """What so many requests at once get: pictures, or errors."""

    def one(seed):
        try:
            (*_, last) = client.stream(f"picture {seed}", timeout=60, seed=seed, **settings)
        except Exception as error:
            return error
        return last

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def pictures(answers):
    return [each for each in answers if isinstance(each, Picture)]


def test_a_killed_server_loses_no_picture(stand_ins, envoy):
    with Client(envoy.grpc) as client:
        with ThreadPoolExecutor(1) as pool:
            drawing = pool.submit(draw, client, QUEUE, num_inference_steps=40)
            wait_for(lambda: envoy.passing() == QUEUE)
            stand_ins.end(1, signal.SIGKILL)
            answers = drawing.result()
        again = draw(client, QUEUE)
    assert [one.settings.seed for one in answers] == list(range(QUEUE)), answers
    assert len(pictures(again)) == QUEUE, again


def test_a_server_that_hangs_loses_no_picture(stand_ins, envoy):
    """It is asked whether it lives, and given up after 20 s. Kubernetes kills it later."""
    with Client(envoy.grpc) as client, ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(draw, client, QUEUE, num_inference_steps=40)
        wait_for(lambda: envoy.passing() == QUEUE)
        stand_ins.end(1, signal.SIGSTOP)
        begun = time.monotonic()
        answers = drawing.result()
        took = time.monotonic() - begun
    assert len(pictures(answers)) == QUEUE, answers
    assert took < 45


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGUSR2], ids=["refuses", "unloaded"])
def test_a_server_that_is_ending_fails_no_request(stand_ins, envoy, how):
    """Its health is still good: requests that it refuses go to the other."""
    with Client(envoy.grpc) as client:
        assert len(pictures(draw(client, QUEUE))) == QUEUE
        stand_ins.end(0, how)
        assert all(client.settings_of("x").prompt == "x" for _ in range(20))
        for _ in range(5):
            answers = draw(client, QUEUE)
            assert len(pictures(answers)) == QUEUE, answers


def test_pictures_in_flight_are_finished_while_their_envoy_is_ended(envoy):
    """There is no other one that they could be asked of again."""
    with Client(envoy.grpc) as client, ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(draw, client, QUEUE, num_inference_steps=80)
        wait_for(lambda: envoy.passing() == QUEUE)
        envoy.end(60)
        answers = drawing.result()
    assert len(pictures(answers)) == QUEUE, answers


def test_an_envoy_that_is_ended_sends_its_callers_to_another(stand_ins, envoy, tmp_path):
    """Else it would have waited for new pictures all the time that it is given."""
    with ExitStack() as stack:
        other = stack.enter_context(Envoy(tmp_path, stand_ins.addresses()))
        service = stack.enter_context(Service([envoy.grpc, other.grpc]))
        url = stack.enter_context(gateway(service.address))
        load = stack.enter_context(Load(url, 6, num_inference_steps=20))
        load.wait_for(6)
        ending = max(envoy, other, key=Envoy.passing)
        service.leave(ending.grpc)
        assert ending.end(60) < 20
        load.wait_for(12)
    assert not load.problems()


def test_a_gateway_that_is_restarted_under_load_fails_no_request(envoy):
    """There is another one, and new connections go there first."""
    with ExitStack() as stack, ExitStack() as one:

        def start(ending):
            return ending.enter_context(gateway(envoy.grpc)).removeprefix("http://")

        first, second = start(one), start(stack)
        service = stack.enter_context(Service([first, second]))
        url = f"http://{service.address}"
        with Load(url, 12, num_inference_steps=10) as load:
            load.wait_for(24)
            service.leave(first)
            time.sleep(2)  # its preStop, in which requests on connections to it still come
            one.close()  # SIGTERM, and its end
            service.join(start(one))
            load.wait_for(36)
    assert not load.problems()


def test_a_server_that_is_back_takes_its_share_within_10_seconds(stand_ins, envoy):
    with Client(envoy.grpc) as client:
        stand_ins.end(0, signal.SIGKILL)
        wait_for(lambda: healthy(envoy) == 1, 60)
        stand_ins.start(0)
        began = time.monotonic()
        wait_for(lambda: healthy(envoy) == 2, 60)
        answers = draw(client, 2 * QUEUE)  # more than one would take
    assert len(pictures(answers)) == 2 * QUEUE, answers
    assert time.monotonic() - began < 10


def test_the_room_of_all_is_used_before_any_request_is_refused(envoy):
    with Client(envoy.grpc) as client:
        answers = draw(client, 3 * QUEUE)
    assert len(pictures(answers)) >= 2 * QUEUE
    refused = [each for each in answers if not isinstance(each, Picture)]
    assert refused and all(type(each) is Overloaded for each in refused), refused


@pytest.fixture
def shipped(tmp_path):
    """Stand-ins that take as much as servers do, and their Envoy."""
    made = StandIns(2, *AS_SHIPPED)
    try:
        with Envoy(tmp_path, made.addresses()) as running:
            wait_for(lambda: healthy(running) == 2, 60)
            yield made, running
    finally:
        made.close()


def test_the_compose_files_gateway_uses_the_room_of_all_its_servers(shipped):
    """With the numbers that stand in the files."""
    command = yaml.safe_load(COMPOSE.read_text())["services"]["gateway"]["entrypoint"]
    (flag,) = [re.sub(r"\$\{\w+:-(\d+)\}", r"\1", one) for one in command if "max-pict" in one]
    room = 2 * AS_SHIPPED[1]
    with gateway(shipped[1].grpc, flag) as url, Load(
        url, room, room, num_inference_steps=3
    ) as load:
        load.wait()
    assert load.statuses() == {200: room}, load.problems()


def test_a_picture_that_a_full_server_refuses_is_drawn_by_another(shipped):
    """Its pictures came by another Envoy: for this one it is the idle one."""
    (made, envoy), streams = shipped, []
    with Client(made.addresses()[0][0]) as other, Client(envoy.grpc) as client:
        for seed in range(AS_SHIPPED[1]):
            streams.append(other.stream("x", seed=seed, num_inference_steps=200))
            next(iter(streams[-1]))
        answers = draw(client, QUEUE)
        for stream in streams:
            stream.cancel()
    assert len(pictures(answers)) == QUEUE, answers


def test_servers_add_up_behind_the_gateway(tmp_path):
    """As many pictures a second as they have together, and none waits longer than with one."""
    clients, each, found = 4, 24, []
    made = StandIns(3)
    try:
        for count in (1, 2, 3):
            with Envoy(tmp_path, made.addresses()[:count]) as envoy, gateway(envoy.grpc) as url:
                wait_for(lambda envoy=envoy, count=count: healthy(envoy) == count, 60)
                with Load(url, clients * count, clients * count) as first:
                    first.wait()  # connections are made
                began = time.monotonic()
                with Load(url, clients * count, each * count, num_inference_steps=25) as load:
                    load.wait()
                found.append((each * count / (time.monotonic() - began), load.seconds(95)))
            assert not load.problems()
    finally:
        made.close()
    for count, (rate, p95) in enumerate(found, 1):
        times, longer = rate / found[0][0], p95 / found[0][1]
        print(
            f"{count}: {rate:.3f} pictures/s, {times:.3f} of one's; p95 {p95:.3f} s, {longer:.3f}"
        )
    (one, waits), (two, _), (three, _) = found
    assert two >= 1.95 * one and three >= 2.9 * one, found
    assert all(p95 <= 1.15 * waits for _, p95 in found), found


def test_what_names_a_request_in_traces_and_logs_passes_through(tmp_path):
    ids = {"traceparent": TRACEPARENT, "x-request-id": "order-7"}
    with ExitStack() as stack:
        triton = stack.enter_context(FakeTriton())
        health = stack.enter_context(serving({"/v2/health/ready": 200}))
        envoy = stack.enter_context(Envoy(tmp_path, [(triton.url, health)]))
        url = stack.enter_context(gateway(envoy.grpc))
        answer = httpx.post(f"{url}/v1/images/generations", json=FOX, headers=ids, timeout=60)
    assert answer.status_code == 200
    assert triton.ids == [("order-7", TRACEPARENT)]


def test_the_compose_file_asks_envoy_whether_it_is_ready(envoy):
    """The command itself, at another port; an Envoy that is told to end is not ready."""
    check = yaml.safe_load(COMPOSE.read_text())["services"]["envoy"]["healthcheck"]["test"]
    port = envoy.operation.rpartition(":")[2]
    command = [word.replace("/8002;", f"/{port};") for word in check[1:]]
    assert subprocess.run(command, check=False).returncode == 0
    httpx.post(f"http://127.0.0.1:{envoy.admin}/healthcheck/fail").raise_for_status()
    assert subprocess.run(command, check=False).returncode != 0
    envoy.process.terminate()
    envoy.process.wait(20)
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0


def test_an_envoy_of_a_test_leaves_nothing_in_shared_memory(envoy):
    mapped = Path(f"/proc/{envoy.process.pid}/maps").read_text()
    assert "/dev/shm/" not in mapped


def test_no_server_at_all_is_told_as_such(stand_ins, envoy):
    """By the gateway too: 503 with Retry-After, and at once."""
    for number in (0, 1):
        stand_ins.end(number, signal.SIGKILL)
    with Client(envoy.grpc) as client:
        (answer,) = draw(client, 1)
    assert type(answer) is NotThere
    with gateway(envoy.grpc) as url, Load(url, 2, 4) as load:
        load.wait()
    assert load.statuses() == {503: 4}
    assert all(answer.headers["retry-after"] for answer in load.answers)
    assert load.seconds(100) < 10


def test_every_metric_of_envoy_that_panels_and_alarms_ask_for_is_there(envoy):
    page = dashboard.samples(httpx.get(f"http://{envoy.operation}/stats/prometheus").text)
    panels, alarms = (list(told("envoy_")) for told in (dashboard.asked, dashboard.alarms))
    assert len({one.panel for one in panels}) >= 3 and len({one.panel for one in alarms}) >= 2
    for one in (*panels, *alarms):
        assert one.chosen(page), one
        own = {"envoy_cluster_name": ("=", "servers")}
        assert one.labels == ({**own, **dashboard.OF_A_RELEASE} if one in panels else own), one
