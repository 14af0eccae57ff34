"""Whatever comes in is served or refused as the client's error, soon, and nothing else suffers."""

import itertools
import json
import re
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.server.calls import PRIVATE, SMALL, Calls, infer_over_http, pixels, post, request, texts

OBJECT = b'{"prompt": "x", "height": 64, "width": 64, "num_inference_steps": 1, %s}'

BAD = {
    "empty": (b"", "prompt"),
    "blank": (b" \t\r\n ", "prompt"),
    "blank by Unicode": ("\u2003\u3000".encode(), "prompt"),
    "1 MB": (b"a" * 2**20, "INPUT_0"),
    "1 MB of JSON": (b'{"prompt": "' + b"a" * 2**20 + b'"}', "INPUT_0"),
    "no UTF-8": (b"a red circle \xff\xfe", "INPUT_0"),
    "UTF-16": ("\ufeffa red circle".encode("utf-16-le"), "INPUT_0"),
    "NUL": (b"a red\0 circle", "prompt"),
    "half a surrogate pair": (rb'{"prompt": "\ud83e"}', "prompt"),
    "wrong type": (OBJECT % b'"seed": "5"', "seed"),
    "another wrong type": (OBJECT % b'"height": 64.0', "height"),
    "true": (OBJECT % b'"num_inference_steps": true', "num_inference_steps"),
    "null": (OBJECT % b'"negative_prompt": null', "negative_prompt"),
    "a list": (OBJECT % b'"scheduler": ["ddim"]', "scheduler"),
    "unknown key": (OBJECT % b'"stpes": 5', "stpes"),
    "repeated key": (OBJECT % b'"seed": 1, "seed": 2', "seed"),
    "NaN": (OBJECT % b'"guidance_scale": NaN', "guidance_scale"),
    "infinity": (OBJECT % b'"guidance_scale": -Infinity', "guidance_scale"),
    "past float": (OBJECT % b'"guidance_scale": 1e999', "guidance_scale"),
    "past 64 bits": (OBJECT % b'"seed": 18446744073709551616', "seed"),
    "5000 digits": (OBJECT % (b'"seed": 1' + b"0" * 5000), "seed"),
    "no steps": (OBJECT % b'"num_inference_steps": 0', "num_inference_steps"),
    "10^9 steps": (OBJECT % b'"num_inference_steps": 1000000000', "num_inference_steps"),
    "no height": (OBJECT % b'"height": 0', "height"),
    "odd width": (OBJECT % b'"width": 65', "width"),
    "width no multiple of 8": (OBJECT % b'"width": 100', "width"),
    "width of 10^6": (OBJECT % b'"width": 1000000', "width"),
    "deep nesting": (b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "INPUT_0"),
    "Python in place of JSON": (b"{'prompt': 'x', 'seed': 7}", "INPUT_0"),
    "JSON cut short": (b'{"prompt": "a red circle"', "INPUT_0"),
    "a list of objects": (b'[{"prompt": "x"}]', "INPUT_0"),
    "no timeout": (OBJECT % b'"timeout": 0', "timeout"),
}

FINE = {
    "emoji": "a 🦊 in a 🌲",
    "right to left": "שמש צהובה \u202eمعكوس",
    "braces": "{red|blue} circle, (large:1.2), [a:b:0.5]",
    "is JSON of another kind": '["a red circle"]',
    "a number": "42",
    "format strings": "%s%n {0} $(id) `id` ';--",
    "markup": "<|endoftext|><script>",
    "control characters": "a\x1b[31m red\r\ncircle\x7f",
}


def soon(refusal):
    """What `refusal()` gives within 1 s, for which it may try twice: machines have other work."""
    for _ in range(2):
        begun = time.monotonic()
        text = refusal()
        if time.monotonic() - begun < 1:
            break
    else:
        raise AssertionError(f"refused after {time.monotonic() - begun:.1f} s: {text}")
    assert not PRIVATE.search(text), text
    assert len(text) < 1000
    return text


def refused(calls, model, inputs):
    """The text of the INVALID_ARG that a call gets."""

    def refusal():
        with pytest.raises(InferenceServerException) as caught:
            calls.infer(model, inputs)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value
        return caught.value.message()

    return soon(refusal)


def refused_over_http(server, model, inputs):
    """The text of the 400 that a call over HTTP gets."""

    def refusal():
        status, answer = infer_over_http(server.http, model, inputs)
        assert status == 400, answer
        return json.loads(answer)["error"]

    return soon(refusal)


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_by_name_value_and_rule(calls, name):
    raw, field = BAD[name]
    for model in ("sd_ensemble", "tokenizer"):
        text = refused(calls, model, {"INPUT_0": texts(raw)})
        assert re.search(rf"tokenizer: {field}: got .{{1,100}}; allowed: .", text), text


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_over_http_too(server, name):
    raw, field = BAD[name]
    text = refused_over_http(server, "sd_ensemble", {"INPUT_0": texts(raw)})
    assert re.search(rf"tokenizer: {field}: got .{{1,100}}; allowed: .", text), text


@pytest.mark.parametrize("name", FINE)
def test_strange_prompts_are_prompts(calls, name):
    tokens = calls.tokens(FINE[name].encode())
    assert json.loads(tokens["settings"][0, 0])["prompt"] == FINE[name]
    (file,) = calls.pictures(request(FINE[name], **{**SMALL, "num_inference_steps": 1}))
    assert pixels(file).shape == (128, 128, 3)


@pytest.mark.parametrize(
    "body",
    [
        {"INPUT_0": 5},
        {"INPUT_0": {"prompt": "x"}},
        {"INPUT_0": None},
        {"INPUT_0": [["x"], ["y", "z"]]},
        {},
        {"INPUT_1": "x"},
        [],
    ],
)
def test_http_bodies_that_are_no_requests(server, body):
    status, reply = post(f"{server.http}/v2/models/sd_ensemble/generate", body)
    assert 400 <= status <= 500  # some of these are 500 by Triton's own words
    assert not PRIVATE.search(reply["error"]), reply


def test_http_bodies_that_are_no_json(server):
    for data in (b"", b"{", b"\xff" * 100, b"[" * 100_000):
        call = urllib.request.Request(f"http://{server.http}/v2/models/sd_ensemble/infer", data)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(call, timeout=30)
        assert not PRIVATE.search(caught.value.read().decode())


def words(input_ids):
    """What the text encoder takes, without weights."""
    rows = len(input_ids)
    return {
        "input_ids": input_ids,
        "prompt_weights": np.ones(input_ids.shape, np.float32),
        "clip_skip": np.zeros((rows, 1), np.int32),
    }


@pytest.fixture(scope="module")
def stages(server):
    """Good inputs of every stage."""
    made = Calls(server.grpc)
    loop = made.loop_inputs(request(**SMALL))
    made.close()
    latents = np.zeros((1, 4, 8, 8), np.float32)
    return {
        "tokenizer": {"INPUT_0": texts(b"x")},
        "text_encoder": words(np.zeros((1, 77), np.int32)),
        "unet": {
            "sample": latents,
            "timestep": np.zeros((1, 1), np.float32),
            "encoder_hidden_states": loop["prompt_embeds"],
        },
        "unet_loop": loop,
        "vae_decoder": {"latent_sample": latents},
        "image_encoder": {
            "sample": np.zeros((1, 3, 8, 8), np.float32),
            "settings": loop["settings"],
            "pictures": loop["pictures"],
        },
        "sd_ensemble": {"INPUT_0": texts(request(**SMALL))},
    }


MODELS = (
    *("tokenizer", "text_encoder", "unet", "unet_loop", "vae_decoder", "image_encoder"),
    "sd_ensemble",
)


def wrong_tensors(good):
    """Inputs of a stage, each with one thing wrong."""
    yield {**good, "extra": np.zeros((1, 1), np.float32)}
    yield {name: np.concatenate([array] * 40) for name, array in good.items()}
    for name, array in good.items():
        others = {other: good[other] for other in good if other != name}
        yield {**others, name: array[np.newaxis]}
        yield {**others, name: np.zeros((1, 1), np.int64)}
        if others:
            yield others
            yield {**others, name: np.concatenate([array, array])}
        if array.ndim > 2 or name in ("input_ids", "prompt_weights"):
            yield {**others, name: array[..., :0]}


@pytest.mark.parametrize("model", MODELS)
def test_wrong_tensors_of_each_stage_are_refused(calls, server, stages, model):
    for inputs in wrong_tensors(stages[model]):
        text = refused(calls, model, inputs)
        assert model in text, text
        assert model in refused_over_http(server, model, inputs)


@pytest.mark.parametrize(
    ("model", "name", "changed", "says"),
    [
        ("text_encoder", "input_ids", np.full((1, 77), 2**31 - 1, np.int32), "input_ids: got"),
        ("text_encoder", "input_ids", np.zeros((1, 500), np.int32), r"input_ids: got \[1, 500\]"),
        ("unet_loop", "prompt_embeds", np.float32("nan"), "prompt_embeds: got NaN"),
        ("unet_loop", "negative_prompt_embeds", np.float32("inf"), "embeds: got Infinity"),
        ("unet", "encoder_hidden_states", np.zeros((1, 77, 5), np.float32), r"got \[1, 77, 5\]"),
    ],
)
def test_values_that_a_stage_cannot_take(calls, stages, model, name, changed, says):
    array = np.full_like(stages[model][name], changed) if changed.ndim == 0 else changed
    text = refused(calls, model, {**stages[model], name: array})
    assert re.search(rf"{model}: .*{says}.*; allowed: ", text), text


def test_a_good_request_is_not_harmed_by_bad_ones_in_its_batch(calls, stages):
    """Bad tokens among good ones: Triton's batcher joins what waits while the stage is at work."""
    good = stages["text_encoder"]
    (expected,) = calls.infer("text_encoder", good).values()
    bad = words(np.full((1, 77), 2**31 - 1, np.int32))
    fresh = [words(np.full((1, 77), 1 + n, np.int32)) for n in range(12)]
    started = [
        (inputs, calls.start("text_encoder", inputs))
        for pair in zip(fresh, itertools.repeat(bad))
        for inputs in pair
    ]
    for inputs, one in started:
        assert (one.wait().error is None) == (inputs is not bad), one.error
    (again,) = calls.infer("text_encoder", good).values()
    np.testing.assert_array_equal(again, expected)


def test_a_string_tensor_whose_lengths_lie(server):
    client = grpcclient.InferenceServerClient(server.grpc)
    for raw in (b"", b"\x05\0\0\0x", b"\xff\xff\xff\xffx", b"\1\0\0\0x" * 2, b"\0\0\0"):
        tensor = grpcclient.InferInput("INPUT_0", [1, 1], "BYTES")
        tensor._raw_content = raw
        with pytest.raises(InferenceServerException) as caught:
            client.infer("sd_ensemble", [tensor])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value
        assert not PRIVATE.search(caught.value.message())
    client.close()
