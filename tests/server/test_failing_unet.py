"""A call of the UNet that fails: on a server of its own, whose UNet fails on demand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.server import repositories
from tests.server.calls import Calls, metrics, metrics_when, texts
from triptych.server.running import RunningServer
from triptych.settings import Settings

MODELS = Path(__file__).parents[2] / "model_repository"
ERROR, RAISES, MEMORY, NAN, SHAPE = -1000.0, -1001.0, -1002.0, -1003.0, -1004.0
MORE = f"""
if (embeds == {ERROR}).any():
    error = pb_utils.TritonError("unet: no memory on the device")
    return pb_utils.InferenceResponse(error=error)
if (embeds == {RAISES}).any():
    raise ValueError("no such file: /home/somebody/weights")
if (embeds == {MEMORY}).any():
    np.empty(2**45)
output[(embeds == {NAN}).any(axis=(1, 2))] = np.nan
if (embeds == {SHAPE}).any():
    output = output[:, :, 1:]
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A running server with the real unet_loop and a UNet that fails on demand, and calls of it."""
    folder = tmp_path_factory.mktemp("failing")
    repository = repositories.linked(folder / "models", MODELS, "tokenizer", "unet", "unet_loop")
    repositories.with_unet(repository, MORE)
    with (repositories.own(repository, "tokenizer") / "config.pbtxt").open("a") as config:
        config.write(
            'parameters { key: "max_num_inference_steps" value { string_value: "1000" } }\n'
        )
    own = repositories.own(repository, "unet_loop")
    for name, value in (
        ("pipeline.json", {"height": 64, "width": 64}),
        ("scheduler_config.json", {"_class_name": "DDIMScheduler", "clip_sample": False}),
    ):
        (own / "1" / name).write_text(json.dumps(value))
    with RunningServer(repository, folder / "server.log") as server:
        calls = Calls(server.grpc)
        yield server, calls
        calls.close()


def image(steps, height=64, fails=1.0):
    embeds = np.full((1, 7, 16), fails, np.float32)
    settings = Settings("a prompt", "", steps, 5.0, 1, height, 64, "ddim", "png")
    return {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": np.zeros_like(embeds),
        "settings": texts(settings.to_json()),
        "pictures": np.array([[b"", b""]], dtype=object),
    }


def test_it_fails_the_requests_in_it_and_no_others(failing):
    server, calls = failing
    in_it = [calls.start("unet_loop", image(900)) for _ in range(2)]
    elsewhere = calls.start("unet_loop", image(200, height=128))
    while metrics(server.metrics).get(("triptych_images_in_flight", "unet_loop"), 0) < 3:
        assert all(one.ended is None for one in (*in_it, elsewhere))
    steps = metrics(server.metrics)["triptych_steps_total", "unet_loop"]
    in_it.append(calls.start("unet_loop", image(900, fails=ERROR)))
    for one in in_it:
        message = one.wait(10).error.message()
        assert message == "unet_loop: unet: no memory on the device"
    assert elsewhere.wait(30).error is None
    assert np.isfinite(elsewhere.result.as_numpy("latents")).all()
    assert metrics(server.metrics)["triptych_steps_total", "unet_loop"] > steps


def test_the_loop_lives_on(failing):
    server, calls = failing
    before = metrics(server.metrics)
    assert calls.start("unet_loop", image(5, fails=ERROR)).wait().error is not None
    good = calls.start("unet_loop", image(5)).wait()
    assert good.error is None and np.isfinite(good.result.as_numpy("latents")).all()
    expected = {"images_total": 1, "steps_total": 5, "unet_calls_total": 6, "images_in_flight": 0}

    def grown(after):
        keys = {name: (f"triptych_{name}", "unet_loop") for name in expected}
        return {name: after[key] - before[key] for name, key in keys.items()}

    after = metrics_when(server.metrics, lambda found: grown(found) == expected)
    assert grown(after) == expected


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (RAISES, r"no such file: \.\.\."),
        (MEMORY, "Unable to allocate 256. TiB"),
        (SHAPE, r"the UNet gave \[4, 4, 7, 8\] for \[4, 4, 8, 8\]"),
    ],
)
def test_what_went_wrong_in_a_call_is_told_to_those_in_it(failing, fails, says):
    server, calls = failing
    elsewhere = calls.start("unet_loop", image(200, height=128))
    in_it = calls.start("unet_loop", image(900))
    metrics_when(server.metrics, lambda found: found["triptych_images_in_flight", "unet_loop"] == 2)
    for one in (calls.start("unet_loop", image(900, fails=fails)), in_it):
        error = one.wait(10).error
        assert error.status() == "StatusCode.INTERNAL"
        assert error.message().startswith("unet_loop: ")
        assert re.search(says, error.message()), error.message()
        assert not re.search(r"/\w+/|Traceback|\n", error.message()), error.message()
    assert elsewhere.wait(30).error is None


def test_latents_that_are_not_finite_are_an_error_of_their_image_alone(failing):
    _, calls = failing
    good = calls.infer("unet_loop", image(40))["latents"]
    beside = calls.start("unet_loop", image(40))
    error = calls.start("unet_loop", image(20, fails=NAN)).wait().error
    expected = "unet_loop: latents are not finite: the UNet or its precision overflowed"
    assert error.message() == expected
    assert beside.wait().error is None
    np.testing.assert_array_equal(beside.result.as_numpy("latents"), good)
