"""More requests than fit: some are refused at once, all others served as if they had come alone."""

import base64
import threading
import time

import numpy as np
import pytest

from tests.gateway.running import Gateway
from tests.gateway.test_background import Jobs
from tests.gateway.test_keys import write
from tests.server import repositories
from tests.server.calls import Calls, metrics, metrics_when, request, texts
from triptych.client import Client, TimedOut
from triptych.gateway.keys import Keys
from triptych.picture.metadata import read_settings
from triptych.server.running import RunningServer

QUEUE = 32
CLIENTS = 200
SMALL = {"height": 64, "width": 64, "num_inference_steps": 30}
IN_FLIGHT = ("triptych_images_in_flight", "unet_loop")
STEPS = ("triptych_steps_total", "unet_loop")


@pytest.fixture(scope="module")
def own(repository, tmp_path_factory):
    """A server whose queue holds `QUEUE` images and whose UNet takes 10 ms a call."""
    folder = tmp_path_factory.mktemp("overload")
    models = repositories.with_unet(repositories.linked(folder / "models", repository))
    config = repositories.own(models, "unet_loop") / "config.pbtxt"
    old, new = (f'max_queue" value {{ string_value: "{most}"' for most in (31, QUEUE))
    repositories.change(config, old, new)
    with RunningServer(models, folder / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def connections(own):
    made = [Calls(own.grpc) for _ in range(10)]
    yield made
    for calls in made:
        calls.close()


def ask(connections, clients, seconds=0.0):
    """So many requests within `seconds`, all answered: those served, and those refused."""
    started = []
    for seed in range(clients):
        inputs = {"INPUT_0": texts(request(seed=seed, **SMALL))}
        started.append(connections[seed % len(connections)].start("sd_ensemble", inputs))
        time.sleep(seconds / clients)
    served, refused = [], []
    for seed, one in enumerate(started):
        one.wait(60)
        if one.error is None:
            served.append(one)
            (output,) = one.result.as_numpy("OUTPUT_0")[:, 0]
            assert read_settings(base64.b64decode(output)).seed == seed
        else:
            refused.append(one)
            assert one.error.status() == "StatusCode.UNAVAILABLE", one.error
            assert f" of {QUEUE} images; try later" in one.error.message()
            assert "the queue is full: " in one.error.message()
    return served, refused


def seconds_of(started, percentile):
    return np.percentile([one.ended - one.begun for one in started], percentile)


def test_200_clients_at_once(connections):
    """Those served take no longer than alone; a refusal never waits for a picture to be drawn."""
    ask(connections, QUEUE)
    ratios = []
    for _ in range(3):
        alone, none = ask(connections, QUEUE)
        assert len(alone) == QUEUE and not none
        served, refused = ask(connections, CLIENTS)
        assert QUEUE <= len(served) < CLIENTS / 2
        ratios.append(seconds_of(served, 95) / seconds_of(alone, 95))
        # A client that sends 200 requests at once is busy for as long itself.
        assert seconds_of(refused, 50) < seconds_of(served, 0)
    assert np.median(ratios) < 1.5, ratios


def test_a_refusal_takes_a_part_of_the_time_of_a_picture(connections):
    """Which is 0.3 s at least, its 30 calls of the UNet."""
    served, refused = ask(connections, CLIENTS, seconds=0.8)
    assert len(served) >= QUEUE and len(refused) > CLIENTS / 4
    assert seconds_of(refused, 95) < seconds_of(served, 0) / 2


def test_the_queue_is_open_again_after_that(connections, own):
    ask(connections, CLIENTS)
    metrics_when(own.metrics, lambda found: found[IN_FLIGHT] == 0)
    served, refused = ask(connections, QUEUE)
    assert len(served) == QUEUE and not refused


def test_clients_that_come_back_are_all_served_in_the_end(own):
    """200 clients on connections of their own, each of which asks until it is served."""
    counts = []

    def client(seed):
        calls = Calls(own.grpc)
        refused = 0
        while True:
            one = calls.start("sd_ensemble", {"INPUT_0": texts(request(seed=seed, **SMALL))})
            if one.wait(60).error is None:
                break
            assert one.error.status() == "StatusCode.UNAVAILABLE", one.error
            refused += 1
            time.sleep(0.3)
        calls.close()
        counts.append(refused)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(counts) == CLIENTS
    assert sum(counts) > CLIENTS / 2


def test_a_gateways_job_waits_for_room_and_its_tries_are_no_pictures_of_its_key(
    own, connections, tmp_path
):
    keys = Keys(write(tmp_path / "keys.json", {"name": "ada", "pictures_a_minute": 1}))
    metrics_when(own.metrics, lambda found: found[IN_FLIGHT] == 0)
    long = {"INPUT_0": texts(request(**{**SMALL, "num_inference_steps": 200}))}
    with Gateway(own.grpc, keys=keys) as gateway:
        ada = Jobs(gateway.url, "ada's")
        started = [connections[n % 10].start("sd_ensemble", long) for n in range(QUEUE)]
        metrics_when(own.metrics, lambda found: found[IN_FLIGHT] == QUEUE)
        for _ in range(2):
            refused = ada.post(background=False)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
            assert "the queue is full" in refused.text and own.grpc not in refused.text
        job = ada.begin()
        assert ada.state(job) == "queued"
        assert [one.wait(60).error for one in started] == [None] * QUEUE
        ada.wait(job, "done")
        assert ada.post(background=False).status_code == 429


@pytest.mark.parametrize("told", ["settings", "protocol", "client"])
def test_a_timeout_ends_the_work(own, connections, told):
    """Of 200 steps, which take 10 ms each, no more are made than fit, and the one that runs."""
    (calls, *_) = connections
    settings = {**SMALL, "num_inference_steps": 200}
    before = metrics(own.metrics)[STEPS]
    if told == "client":
        with Client(own.grpc) as client, pytest.raises(TimedOut):
            client.generate("x", timeout=0.5, **settings)
    else:
        extra = {"timeout": 0.5} if told == "settings" else {}
        tensor = texts(request(**settings, **extra))
        with pytest.raises(Exception, match="timeout: the request's time was over after"):
            calls.infer_within("sd_ensemble", {"INPUT_0": tensor}, 60 if extra else 0.5)
    metrics_when(own.metrics, lambda found: found[IN_FLIGHT] == 0)
    steps = metrics(own.metrics)[STEPS]
    assert steps - before <= 0.5 / 0.01 + 1
    time.sleep(0.3)
    assert metrics(own.metrics)[STEPS] == steps
