"""The unet called over its channel instead of through Triton: on a server of its own."""

import shutil
import threading
import time

import pytest

from tests.server.calls import SECRET, SMALL, Calls, metrics, order, request
from triptych.server import restricted
from triptych.server.running import RunningServer
from triptych_export.config_edits import parameter

CALLS = ("nv_inference_exec_count", "unet")
UNET_CALLS = ("triptych_unet_calls_total", "unet_loop")
UNET_ROWS = ("triptych_unet_rows_total", "unet_loop")
LOOK = 1.5
"""Seconds in which unet_loop looks for a channel again."""
STEPS = ("triptych_steps_total", "unet_loop")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def with_channel(repository, tmp_path_factory, monkeypatch_module):
    """A running server with the parameter `channel`, and calls of it."""
    copy = tmp_path_factory.mktemp("with_channel") / "models"
    shutil.copytree(repository, copy, copy_function=shutil.copyfile)
    with open(copy / "unet" / "config.pbtxt", "a") as config:
        config.write(parameter("channel", "true") + "instance_group [ { count: 2 } ]\n")
    flags = "--model-control-mode=explicit", "--load-model=*"
    monkeypatch_module.setenv(restricted.VARIABLE, SECRET)
    with RunningServer(copy, tmp_path_factory.mktemp("log") / "server.log", *flags) as running:
        calls = Calls(running.grpc)
        yield running, calls
        calls.close()


def test_pictures_are_the_same_and_triton_was_not_asked(with_channel, calls):
    running, on_channel = with_channel
    requests = [request(**{**SMALL, "num_inference_steps": n, "seed": n}) for n in (2, 5, 9)]
    expected = [calls.pictures(one)[0] for one in requests]
    drawn = [None] * len(requests)

    def draw(at):
        (drawn[at],) = on_channel.pictures(requests[at])

    threads = [threading.Thread(target=draw, args=(at,)) for at in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == expected
    assert metrics(running.metrics)[CALLS] == 0


def test_each_instance_has_images_of_its_own(with_channel):
    running, on_channel = with_channel
    before = metrics(running.metrics)
    on_channel.pictures(*[request(**{**SMALL, "seed": seed}) for seed in range(2)])
    after = metrics(running.metrics)
    assert [after[name] - before[name] for name in (UNET_CALLS, UNET_ROWS)] == [6, 12]


def test_it_answers_through_triton_too(with_channel, calls):
    _, on_channel = with_channel
    raw = request(**SMALL)
    inputs = calls.loop_inputs(raw)
    sample = calls.infer("unet_loop", inputs)["latents"]
    call = {
        "sample": sample,
        "timestep": sample[:, 0, 0, :1] * 0 + 500,
        "encoder_hidden_states": inputs["prompt_embeds"],
    }
    ours, theirs = (one.infer("unet", call)["out_sample"] for one in (on_channel, calls))
    assert (ours == theirs).all()


def test_what_the_unet_refuses_reaches_the_client(with_channel, calls):
    _, on_channel = with_channel
    inputs = calls.loop_inputs(request(**SMALL))
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        inputs[name] = inputs[name][:, :, :5].copy()
    with pytest.raises(Exception, match="unet_loop: unet: encoder_hidden_states: got"):
        on_channel.infer("unet_loop", inputs)


def test_a_unet_that_is_loaded_again_is_called_over_its_channel_again(with_channel):
    running, on_channel = with_channel

    def draw():
        return on_channel.pictures(request(**SMALL))

    drawn = draw()
    before = metrics(running.metrics)[CALLS]
    assert order(running, "load", "unet") == (200, "")
    assert draw() == drawn
    assert order(running, "unload", "unet")[0] == 200
    deadline = time.monotonic() + 30
    with pytest.raises(Exception, match="unet"):
        while time.monotonic() < deadline:  # Triton answers before the process has ended
            draw()
    assert order(running, "load", "unet") == (200, "")
    time.sleep(LOOK)
    assert draw() == drawn
    assert metrics(running.metrics).get(CALLS, 0) <= before
