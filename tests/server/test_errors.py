"""What cannot be served is refused as the client's error: the stage, the value and the rule."""

import json
import re

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.server.calls import SMALL, post, request, texts


def refused(calls, model, inputs, stage=None):
    """The error's text, without where Triton says that it was in the ensemble."""
    with pytest.raises(InferenceServerException) as caught:
        calls.infer(model, inputs)
    error = caught.value
    assert error.status() == "StatusCode.INVALID_ARGUMENT", error
    text = re.sub(r"^in ensemble '\w+', ", "", error.message())
    assert text.startswith(f"{stage or model}: "), text
    assert not re.search(r"/\w+/|Traceback|File \"|shm|triptych_[0-9a-f]{8}", text), text
    return text


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "prompt: got ''; allowed: a text that is not blank"),
        (b"\xff\xfe", r"INPUT_0: got b'\\xff\\xfe'; allowed: text in UTF-8"),
        (request(steps=3), "steps: got 3; allowed: only the keys prompt, negative_prompt"),
        (request(num_inference_steps=0), "num_inference_steps: got 0; allowed: an integer from 1"),
        (request(width=100), "width: got 100; allowed: 96 or 104, the nearest sizes"),
        (request(scheduler="magic"), "scheduler: got 'magic'; allowed: ddim, ddpm, pndm"),
        (request(output_format="gif"), "output_format: got 'gif'; allowed: one of png, jpeg, webp"),
    ],
)
def test_bad_settings(calls, server, raw, says):
    text = refused(calls, "sd_ensemble", {"INPUT_0": texts(raw)}, "tokenizer")
    assert re.search(says, text), text
    assert refused(calls, "tokenizer", {"INPUT_0": texts(raw)}) == text


def test_bad_settings_over_http(server):
    body = {"INPUT_0": request(seed=-1).decode()}
    status, reply = post(f"{server.http}/v2/models/sd_ensemble/generate", body)
    assert status == 400
    assert "tokenizer: seed: got -1; allowed: an integer from 0" in reply["error"]


def test_settings_of_a_stage_called_alone(calls):
    inputs = calls.loop_inputs(request(**SMALL))
    for settings in (b"no JSON", b"{}", b"\xff"):
        text = refused(calls, "unet_loop", {**inputs, "settings": texts(settings)})
        assert "; allowed: " in text
        sample = np.zeros((1, 3, 8, 8), np.float32)
        last = {"sample": sample, "pictures": inputs["pictures"], "settings": texts(settings)}
        refused(calls, "image_encoder", last)
    settings = {**json.loads(inputs["settings"][0, 0]), "num_inference_steps": 10**9}
    text = refused(calls, "unet_loop", {**inputs, "settings": texts(json.dumps(settings))})
    assert "num_inference_steps: got 1000000000; allowed: an integer from 1" in text


def test_a_batch_has_one_size(calls):
    raw = request(**SMALL), request(**{**SMALL, "width": 192})
    text = refused(calls, "sd_ensemble", {"INPUT_0": texts(*raw)}, "unet_loop")
    assert "one height and width a batch" in text


def test_tensors_of_other_shapes(calls):
    sample = np.zeros((1, 4, 16, 16), np.float32)
    unet = {"sample": sample, "timestep": np.zeros((1, 1), np.float32)}
    wrong = np.zeros((1, 77, 5), np.float32)
    text = refused(calls, "unet", {**unet, "encoder_hidden_states": wrong})
    assert re.search(
        r"encoder_hidden_states: got \[1, 77, 5\]; allowed: shape \[-1, -1, \d+\]", text
    )
    inputs = calls.loop_inputs(request(**SMALL))
    both = {"prompt_embeds": wrong, "negative_prompt_embeds": wrong}
    text = refused(calls, "unet_loop", {**inputs, **both})
    assert "unet: encoder_hidden_states: got [2, 77, 5]" in text
    shorter = {"negative_prompt_embeds": inputs["negative_prompt_embeds"][:, :5]}
    assert "prompt_embeds: got" in refused(calls, "unet_loop", {**inputs, **shorter})


def test_a_bad_request_harms_no_other(calls):
    good = calls.start("sd_ensemble", {"INPUT_0": texts(request(**SMALL))})
    for _ in range(5):
        refused(calls, "sd_ensemble", {"INPUT_0": texts(b"")}, "tokenizer")
    assert good.wait().error is None
