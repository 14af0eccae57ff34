"""OpenAI's images API, by OpenAI's own client."""

import base64
import dataclasses
import io
import threading

import grpc
import httpx
import openai
import pytest
from PIL import Image

from tests.gateway.running import wait_for
from triptych.gateway.openai import Asked
from triptych.picture.metadata import read_settings
from triptych.settings import Settings


@pytest.fixture
def client(gateway):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)


def picture(item):
    return Image.open(io.BytesIO(base64.b64decode(item.b64_json)))


def test_a_prompt_becomes_a_picture(client, triton):
    answer = client.images.generate(prompt="a red circle", size="128x64", model="sd_ensemble")
    (item,) = answer.data
    assert picture(item).size == (128, 64)
    assert answer.created > 1.7e9
    assert item.url is None
    assert triton.requests == [
        {
            "prompt": "a red circle",
            "output_format": "png",
            "width": 128,
            "height": 64,
            "timeout": 300,
        }
    ]


def test_zero_is_the_seed_after_the_highest(client, triton):
    answer = client.images.generate(prompt="x", n=3, extra_body={"seed": 2**64 - 2})
    seeds = [2**64 - 2, 2**64 - 1, 0]
    assert [item.settings["seed"] for item in answer.data] == seeds


def test_our_settings_go_beside_and_come_back(client, triton):
    own = {"negative_prompt": "blue", "num_inference_steps": 3, "guidance_scale": 2, "seed": 7}
    answer = client.images.generate(
        prompt="x",
        n=3,
        output_format="webp",
        extra_body={**own, "scheduler": "DDIMScheduler", "timestep_spacing": "trailing"},
    )
    assert sorted(request["seed"] for request in triton.requests) == [7, 8, 9]
    assert [item.settings["seed"] for item in answer.data] == [7, 8, 9]
    for item in answer.data:
        settings = read_settings(base64.b64decode(item.b64_json))
        assert (settings.negative_prompt, settings.num_inference_steps) == ("blue", 3)
        assert (settings.scheduler, settings.output_format) == ("ddim", "webp")
        assert settings.timestep_spacing == "trailing"
    assert answer.output_format == "webp"


def test_every_setting_of_ours_reaches_the_server(client, triton):
    own = {
        "negative_prompt": "blue",
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "seed": 7,
        "scheduler": "ddim",
        "timestep_spacing": "trailing",
        "eta": 0.5,
        "clip_skip": 1,
        "prompt_syntax": "webui",
        "guidance_rescale": 0.5,
        "guidance_start": 0.25,
        "guidance_stop": 0.75,
        "cache_interval": 3,
        "prompt_2": "1",
        "negative_prompt_2": "2",
        "original_size": [256, 512],
        "crops_coords_top_left": [8, 0],
        "target_size": [1024, 768],
        "output_format": "webp",
        "loras": [{"name": "ink", "scale": 0.5}, {"name": "chalk", "scale": 1.0}],
    }
    settings = {field.name for field in dataclasses.fields(Settings)}
    assert {*own, "model"} == settings & set(Asked.model_fields)
    triton.is_sdxl = True
    client.images.generate(prompt="x", extra_body=own)
    (request,) = triton.requests
    assert {name: request.get(name) for name in own} == own


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"target_size": [64]}, "target_size: got a list; allowed: at least 2 of them"),
        ({"target_size": [64] * 3}, "target_size: got a list; allowed: at most 2 of them"),
        ({"original_size": [64, -1]}, "original_size.1: got -1; allowed: 0 or more"),
        ({"prompt_2": 1}, "prompt_2: got 1; allowed: a text"),
    ],
)
def test_sdxls_settings_are_checked(client, asked, told):
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="x", extra_body=asked)
    assert refused.value.body["message"] == told


def test_sdxls_settings_are_refused_by_other_models(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="x", extra_body={"prompt_2": "y"})
    assert refused.value.body["param"] == "prompt_2"
    assert "has one text encoder" in refused.value.body["message"]


def test_a_picture_by_url_is_the_same_file_and_can_be_fetched_again(client, gateway):
    answer = client.images.generate(
        prompt="x", response_format="url", output_format="jpeg", extra_body={"seed": 1}
    )
    (item,) = answer.data
    assert item.url.startswith(f"{gateway.url}/images/") and ".jpeg?" in item.url
    first, second = httpx.get(item.url), httpx.get(item.url)
    assert first.headers["content-type"] == "image/jpeg"
    assert first.content == second.content
    assert read_settings(first.content).seed == 1
    assert httpx.get(item.url[:-9] + "AAAA.jpeg").status_code == 404


def test_neutral_values_of_openais_fields(client):
    neutral = {"style": "vivid", "background": "auto", "moderation": "low", "user": "somebody"}
    own = {"output_compression": 100, "stream": False, "partial_images": 0}
    assert client.images.generate(prompt="x", quality="hd", **neutral, extra_body=own).data


def test_an_alias_of_the_model(start, triton):
    gateway = start(model_aliases={"dall-e-3": None, "gpt-image-1": None})
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == ["sd_ensemble", "dall-e-3", "gpt-image-1"]
    assert client.models.retrieve("dall-e-3").id == "dall-e-3"
    (by_url,) = client.images.generate(prompt="x", model="dall-e-3").data
    assert read_settings(httpx.get(by_url.url).content).prompt == "x"
    (inside,) = client.images.generate(prompt="x", model="gpt-image-1").data
    assert inside.url is None and inside.b64_json
    asked = {"prompt": "x", "model": "dall-e-3", "response_format": "b64_json"}
    assert client.images.generate(**asked).data[0].b64_json
    with pytest.raises(openai.NotFoundError, match="--model-alias"):
        client.images.generate(prompt="x", model="dall-e-2")


def test_the_address_without_v1(gateway, start):
    url = f"{gateway.url}/images/generations"
    assert httpx.post(url, json={"prompt": "x"}).json()["data"][0]["b64_json"]
    assert "message" in httpx.post(url, json={"n": 1}).json()["error"]
    keyed = f"{start(api_key='sesame').url}/images/generations"
    assert httpx.post(keyed, json={"prompt": "x"}).status_code == 401


def test_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == ("sd_ensemble", "triptych")
    assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError, match="there is no model 'dall-e-9'"):
        client.models.retrieve("dall-e-9")
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="x", model="dall-e-9")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"size": "100x64"}, "size"),
        ({"size": "1024x1024"}, "size"),
        ({"style": "natural"}, "style"),
        ({"background": "transparent"}, "background"),
        ({"output_compression": 50}, "output_compression"),
        ({"extra_body": {"stream": True}}, "stream"),
        ({"size": "big"}, "size"),
        ({"n": 11}, "n"),
        ({"n": 0}, "n"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"output_format": "gif"}, "output_format"),
        ({"extra_body": {"steps": 3}}, "steps"),
        ({"extra_body": {"num_inference_steps": 1001}}, "num_inference_steps"),
        ({"extra_body": {"num_inference_steps": 500}}, "num_inference_steps"),
        ({"extra_body": {"num_inference_steps": True}}, "num_inference_steps"),
        ({"extra_body": {"guidance_scale": -1}}, "guidance_scale"),
        ({"extra_body": {"scheduler": "magic"}}, "scheduler"),
        ({"extra_body": {"seed": -1}}, "seed"),
        ({"extra_body": {"seed": 2**64}}, "seed"),
    ],
)
def test_what_cannot_be_is_refused_in_openais_shape(client, asked, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": "x", **asked})
    error = caught.value
    assert error.param == param
    assert error.type == "invalid_request_error"
    assert error.body["message"].startswith(f"{param}: ")
    assert "Value error" not in error.body["message"]
    assert error.body["message"].count(f"{param}: ") == 1


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (grpc.StatusCode.UNAVAILABLE, openai.RateLimitError, 429),
        (grpc.StatusCode.INTERNAL, openai.InternalServerError, 500),
        (grpc.StatusCode.CANCELLED, openai.InternalServerError, 504),
    ],
)
def test_a_server_that_cannot_now(client, triton, code, kind, status):
    triton.abort = (code, "unet_loop: timeout: the request's time was over")
    with pytest.raises(kind) as caught:
        client.images.generate(prompt="x")
    assert caught.value.status_code == status
    retry = caught.value.response.headers.get("retry-after")
    assert (retry is not None) == (status == 429)
    assert triton.url not in str(caught.value)


def test_a_server_that_is_not_ready(client, triton):
    triton.ready = False
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "no model")
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt="x")
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "5"
    assert caught.value.body["message"] == "no server is ready; try later"


def test_the_openai_client_tries_again_by_itself(gateway, triton):
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=2)
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    threading.Timer(0.5, lambda: setattr(triton, "abort", None)).start()
    assert client.images.generate(prompt="x").data


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"n": 0}, "n: got 0; allowed: 1 or more"),
        ({"n": 11}, "n: got 11; allowed: 10 or less"),
        ({"n": "2"}, "n: got '2'; allowed: a whole number"),
        ({"prompt": " "}, "prompt: got ' '; allowed: a text that is not blank"),
        ({"size": "64X64"}, "size: got '64X64'; allowed: WIDTHxHEIGHT in pixels, or auto"),
        ({"output_format": "gif"}, "output_format: got 'gif'; allowed: 'png', 'jpeg' or 'webp'"),
        ({"steps": 3}, "steps: got 3; allowed: no field of this name"),
        ({"seed": 2**64}, f"seed: got {2**64}; allowed: {2**64 - 1} or less"),
        ({"guidance_scale": "7"}, "guidance_scale: got '7'; allowed: a number"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_its_value_and_what_is_allowed(gateway, asked, said):
    body = {"prompt": "x", **asked}
    answer = httpx.post(f"{gateway.url}/v1/images/generations", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == said
    assert answer.json()["error"]["param"] == next(iter(asked))


@pytest.mark.parametrize(
    ("model", "name"), [("unet_loop", "max_queue"), ("sd_ensemble_stream", "max_streams")]
)
def test_more_pictures_than_the_server_ever_takes_are_refused_for_good(client, triton, model, name):
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "the queue is full: 3 of 3 images; try later")
    triton.parameters = {model: {name: "3"}}
    allowed = f"n: got 4; allowed: at most 3, the {name} of the server's {model}"
    with pytest.raises(openai.BadRequestError, match=allowed) as caught:
        client.images.generate(prompt="x", n=4)
    assert caught.value.body["param"] == "n"
    with pytest.raises(openai.RateLimitError):
        client.images.generate(prompt="x", n=3)


def test_more_pictures_than_the_gateway_draws_at_a_time_are_refused(start, triton):
    gateway = start(max_pictures=3)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(
        openai.BadRequestError, match="n: got 4; allowed: at most 3, the gateway's --max-pictures"
    ):
        client.images.generate(prompt="x", n=4)
    triton.hold.clear()
    answers = []
    drawing = threading.Thread(
        target=lambda: answers.append(client.images.generate(prompt="x", n=3))
    )
    drawing.start()
    wait_for(lambda: len(triton.requests) == 3)
    with pytest.raises(openai.RateLimitError):
        client.images.generate(prompt="x")
    triton.hold.set()
    drawing.join()
    assert len(answers[0].data) == 3
    assert client.images.generate(prompt="x").data


def test_a_client_that_leaves_gives_its_pictures_up(gateway, triton):
    triton.hold.clear()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{gateway.url}/v1/images/generations", json={"prompt": "x", "n": 2}, timeout=0.5
        )
    wait_for(lambda: triton.left == 2)


def test_one_that_fails_gives_the_others_up(client, triton):
    triton.abort_after = (grpc.StatusCode.INTERNAL, "it broke")
    with pytest.raises(openai.InternalServerError, match="it broke"):
        client.images.generate(prompt="x", n=3)
    triton.abort_after = None
    assert client.images.generate(prompt="x").data


def test_a_key_is_asked_for(start):
    gateway = start(api_key="sésame")
    for key in ("wrong", "s", "none"):
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    answer = httpx.get(f"{gateway.url}/v1/models")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_with_the_key_it_draws(start):
    gateway = start(api_key="sesame")
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sesame", max_retries=0)
    answer = client.images.generate(prompt="x", response_format="url")
    assert httpx.get(answer.data[0].url).status_code == 200
