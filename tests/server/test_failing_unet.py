"""A call of the UNet that fails: on a server of its own, whose UNet fails on demand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.server.calls import Calls, metrics, metrics_when, texts
from triptych.server.running import RunningServer
from triptych.settings import Settings

MODELS = Path(__file__).parents[2] / "model_repository"
FAIL = -1000.0
UNET = f"""
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        time.sleep(0.01)
        embeds, sample = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("encoder_hidden_states", "sample")
        )
        if (embeds == {FAIL}).any():
            error = pb_utils.TritonError("unet: no memory on the device")
            return pb_utils.InferenceResponse(error=error)
        output = pb_utils.Tensor("out_sample", np.tanh(sample))
        return pb_utils.InferenceResponse([output])
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A running server with the real unet_loop and that unet, and calls of it."""
    repository = tmp_path_factory.mktemp("failing") / "models"
    for model in ("unet", "unet_loop"):
        (repository / model / "1").mkdir(parents=True)
        shutil.copy(MODELS / model / "config.pbtxt", repository / model)
    config = repository / "unet" / "config.pbtxt"
    text = config.read_text().split("# Latents")[0]  # less what only networks have
    config.write_text(text.replace('backend: "fastdeploy"', 'backend: "python"'))
    (repository / "unet" / "1" / "model.py").write_text(UNET)
    # Names the checkout, since it is found from the file's own place otherwise.
    code = (MODELS / "unet_loop" / "1" / "model.py").read_text()
    code = code.replace("Path(__file__).resolve().parents[3]", f'"{MODELS.parent}"')
    (repository / "unet_loop" / "1" / "model.py").write_text(code)
    for name, value in (
        ("pipeline.json", {"height": 64, "width": 64}),
        ("scheduler_config.json", {"_class_name": "DDIMScheduler", "clip_sample": False}),
    ):
        (repository / "unet_loop" / "1" / name).write_text(json.dumps(value))
    log = tmp_path_factory.mktemp("log") / "server.log"
    with RunningServer(repository, log) as server:
        calls = Calls(server.grpc)
        yield server, calls
        calls.close()


def image(steps, height=64, fails=False):
    embeds = np.full((1, 7, 16), FAIL if fails else 1, np.float32)
    settings = Settings("a prompt", "", steps, 5.0, 1, height, 64, "ddim", "png")
    return {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": np.zeros_like(embeds),
        "settings": texts(settings.to_json()),
    }


def test_it_fails_the_requests_in_it_and_no_others(failing):
    server, calls = failing
    in_it = [calls.start("unet_loop", image(500)) for _ in range(2)]
    elsewhere = calls.start("unet_loop", image(60, height=128))
    while metrics(server.metrics).get(("triptych_images_in_flight", "unet_loop"), 0) < 3:
        assert all(one.ended is None for one in (*in_it, elsewhere))
    steps = metrics(server.metrics)["triptych_steps_total", "unet_loop"]
    in_it.append(calls.start("unet_loop", image(500, fails=True)))
    for one in in_it:
        message = one.wait(10).error.message()
        assert message == "unet_loop: unet: no memory on the device"
    assert elsewhere.wait(30).error is None
    assert np.isfinite(elsewhere.result.as_numpy("latents")).all()
    assert metrics(server.metrics)["triptych_steps_total", "unet_loop"] > steps


def test_the_loop_lives_on(failing):
    server, calls = failing
    before = metrics(server.metrics)
    assert calls.start("unet_loop", image(5, fails=True)).wait().error is not None
    good = calls.start("unet_loop", image(5)).wait()
    assert good.error is None and np.isfinite(good.result.as_numpy("latents")).all()
    expected = {"images_total": 1, "steps_total": 5, "unet_calls_total": 6, "images_in_flight": 0}

    def grown(after):
        keys = {name: (f"triptych_{name}", "unet_loop") for name in expected}
        return {name: after[key] - before[key] for name, key in keys.items()}

    after = metrics_when(server.metrics, lambda found: grown(found) == expected)
    assert grown(after) == expected
