"""Images in flight share the UNet's calls: a new one joins at the next, a finished one leaves."""

import math
import time

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.server.calls import SMALL, metrics, request, texts

CALLS = ("nv_inference_exec_count", "unet")
IN_FLIGHT = ("triptych_images_in_flight", "unet_loop")
STEPS = ("triptych_steps_total", "unet_loop")


def settings(steps, **more):
    return {**SMALL, "num_inference_steps": steps, **more}


def ensemble(steps, **more):
    return {"INPUT_0": texts(request(**settings(steps, **more)))}


@pytest.fixture(scope="module")
def seconds_a_step(server):
    from tests.server.calls import Calls

    calls = Calls(server.grpc)
    calls.pictures(request(**settings(3)))
    begun = time.monotonic()
    calls.pictures(request(**settings(20)))
    calls.close()
    return (time.monotonic() - begun) / 20


def test_answers_come_in_the_order_of_work(calls, server, seconds_a_step):
    """The longest comes first, each next one has fewer steps than the one before has left."""
    gap = math.ceil(0.1 / seconds_a_step) + 3
    steps = [4 + gap * left for left in range(7, -1, -1)]
    before = metrics(server.metrics)
    started = []
    for count in steps:
        started.append(calls.start("sd_ensemble", ensemble(count)))
        time.sleep(0.1)
    for one in started:
        assert one.wait().error is None
    ended = [one.ended for one in started]
    assert ended == sorted(ended, reverse=True)
    made = metrics(server.metrics)[CALLS] - before[CALLS]
    assert max(steps) <= made < sum(steps) / 2


def test_a_short_one_overtakes_a_long_one(calls):
    long = calls.start("sd_ensemble", ensemble(100))
    time.sleep(0.3)
    short = calls.start("sd_ensemble", ensemble(3)).wait()
    assert short.error is None
    assert long.ended is None
    assert long.wait().error is None


def test_the_result_does_not_depend_on_its_company(calls, server):
    """To the last bit: ONNX Runtime's CPU provider works each row as if it were alone."""
    raw = request("a green star", **settings(10))
    inputs = calls.loop_inputs(raw)
    alone = calls.infer("unet_loop", inputs)["latents"]
    (picture_alone,) = calls.pictures(raw)
    before = metrics(server.metrics)
    others = [
        calls.start("sd_ensemble", ensemble(25, **more))
        for more in ({"seed": 1}, {"guidance_scale": 1}, {"scheduler": "euler"}, {"width": 192})
    ]
    among = calls.start("unet_loop", inputs)
    (picture_among,) = calls.pictures(raw)
    for other in (*others, among):
        assert other.wait().error is None
    assert metrics(server.metrics)[CALLS] - before[CALLS] < 80, "they shared no calls"
    assert np.array_equal(among.result.as_numpy("latents"), alone)
    assert picture_among == picture_alone


def test_a_cancelled_request_leaves(calls, server):
    given_up = calls.start("unet_loop", calls.loop_inputs(request(**settings(200))))
    while metrics(server.metrics)[IN_FLIGHT] == 0:
        time.sleep(0.02)
    given_up.cancel()
    deadline = time.monotonic() + 5
    while metrics(server.metrics)[IN_FLIGHT]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    steps = metrics(server.metrics)[STEPS]
    time.sleep(0.5)
    assert metrics(server.metrics)[STEPS] == steps


def test_a_failing_call_fails_its_own_requests_only(calls):
    inputs = calls.loop_inputs(request(**settings(40)))
    good = calls.start("unet_loop", inputs)
    wrong = np.zeros((1, 77, 5), np.float32)
    bad = {**inputs, "prompt_embeds": wrong, "negative_prompt_embeds": wrong}
    with pytest.raises(InferenceServerException, match="unet_loop: unet: "):
        calls.infer("unet_loop", bad)
    assert good.wait().error is None
    assert np.isfinite(good.result.as_numpy("latents")).all()
