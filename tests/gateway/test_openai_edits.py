"""OpenAI's edits and variations, by OpenAI's own client."""

import base64
import io

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.gateway.pictures import file_of, flat, grain, transparent
from triptych.picture.metadata import read_settings

IMAGE = flat((64, 72))
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


@pytest.fixture
def client(gateway):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)


def decoded(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_an_edit_sends_the_picture_as_it_came(client, triton):
    own = {"seed": 7, "strength": 0.5, "num_inference_steps": 4, "guidance_scale": 2.5}
    answer = client.images.edit(
        image=io.BytesIO(IMAGE),
        prompt="12",
        n=2,
        size="auto",
        stream=False,
        extra_body={**own, "scheduler": "ddim", "negative_prompt": "7"},
    )
    assert [item.settings["seed"] for item in answer.data] == [7, 8]
    drawn = read_settings(base64.b64decode(answer.data[0].b64_json))
    assert (drawn.width, drawn.height, drawn.strength) == (64, 72, 0.5)
    sent = {**triton.requests[0], "seed": 7}
    assert sent == {
        "prompt": "12",
        "negative_prompt": "7",
        "num_inference_steps": 4,
        "guidance_scale": 2.5,
        "scheduler": "ddim",
        "output_format": "png",
        "seed": 7,
        "strength": 0.5,
        "image": base64.b64encode(IMAGE).decode(),
        "timeout": 300,
    }


def test_lists_in_a_form(client, triton, gateway):
    triton.is_sdxl = True
    lists = {"original_size": [256, 512], "target_size": [64, 72]}
    client.images.edit(image=IMAGE, prompt="x", extra_body={**lists, "prompt_2": "[3]"})
    assert {name: triton.requests[0].get(name) for name in lists} == lists
    assert triton.requests[0]["prompt_2"] == "[3]"
    form = {"prompt": "x", "loras": '[{"name": "ink", "scale": 0.5}]', "target_size": "[8, 9]"}
    answer = httpx.post(f"{gateway.url}/v1/images/edits", data=form, files={"image": IMAGE})
    assert answer.status_code == 200
    assert triton.requests[1]["loras"] == [{"name": "ink", "scale": 0.5}]
    assert triton.requests[1]["target_size"] == [8, 9]
    form = {"prompt": "x", "target_size": "[8, 9"}
    answer = httpx.post(f"{gateway.url}/v1/images/edits", data=form, files={"image": IMAGE})
    assert answer.json()["error"]["message"] == "target_size: got '[8, 9'; allowed: a list"


@pytest.mark.parametrize("first", ["5", "null", "[8, 9]", "x"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_list_in_a_form_is_said_in_one_way(gateway, triton, first, order):
    parts = [("target_size", (None, first)), ("target_size[]", (None, "6"))][::order]
    files = [("prompt", (None, "x")), ("image", IMAGE), *parts]
    answer = httpx.post(f"{gateway.url}/v1/images/edits", files=files)
    assert answer.status_code == 400
    told = "target_size: got '2 of them'; allowed: one"
    assert answer.json()["error"]["message"] == told
    assert triton.requests == []


def test_the_transparent_part_of_the_mask_is_painted_anew(client, triton):
    own = {"mask_blur": 2, "padding_mask_crop": 8}
    mask = transparent((64, 72), (0, 0, 32, 72))
    asked = {"image": [("a.png", IMAGE)], "mask": mask, "prompt": "x", "size": "64x64"}
    assert client.images.edit(**asked, extra_body=own).data
    (sent,) = triton.requests
    assert (sent["mask_blur"], sent["padding_mask_crop"]) == (2, 8)
    assert (sent["width"], sent["height"]) == (64, 64)
    white = np.asarray(decoded(sent["mask_image"]).convert("L"))
    assert white.shape == (72, 64)
    assert (white[:, :32] == 255).all() and (white[:, 32:] == 0).all()


def test_for_dall_e_the_pictures_own_transparent_part_is_the_mask(start, triton):
    gateway = start(model_aliases={"dall-e-2": None})
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    image = transparent()
    (by_url,) = client.images.edit(image=image, prompt="x", model="dall-e-2").data
    assert read_settings(httpx.get(by_url.url).content).strength == 1
    assert (np.asarray(decoded(triton.requests[0]["mask_image"]))[:, :32] == 255).all()
    client.images.edit(image=image, prompt="x")
    client.images.edit(image=IMAGE, prompt="x", model="dall-e-2")
    assert all("mask_image" not in sent for sent in triton.requests[1:])


def test_a_variation_has_no_prompt_and_a_strength_of_its_own(client, triton):
    assert len(client.images.create_variation(image=IMAGE, n=2).data) == 2
    sent = triton.requests[0]
    assert (sent["prompt"], sent["strength"]) == ("", 0.6)
    assert base64.b64decode(sent["image"]) == IMAGE
    client.images.create_variation(image=IMAGE, extra_body={"strength": 0.9})
    assert triton.requests[-1]["strength"] == 0.9


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"image": [IMAGE, IMAGE]}, "image", "image: got '2 of them'; allowed: one"),
        ({"image": b"no picture"}, "image", "image: got b'no picture'; allowed: a PNG"),
        ({"mask": flat()}, "mask", "mask: got one that is opaque; allowed: a picture with"),
        ({"mask": b"GIF89a"}, "mask", "mask: got b'GIF89a'; allowed: a PNG, JPEG or WebP"),
        ({"mask": transparent()[:90]}, "mask", "mask: got .* that is whole"),
        ({"prompt": " "}, "prompt", "prompt: got ' '; allowed: a text that is not blank"),
        ({"n": 11}, "n", "n: got 11; allowed: 10 or less"),
        ({"size": "64X64"}, "size", "size: got '64X64'; allowed: WIDTHxHEIGHT"),
        ({"size": "100x64"}, "size", "size: got '100x64'; allowed: WIDTHxHEIGHT; width: 96 or 104"),
        ({"input_fidelity": "high"}, "input_fidelity", "input_fidelity: got 'high'; allowed"),
        ({"extra_body": {"strength": 1.5}}, "strength", "strength: got 1.5; allowed: 1.0 or less"),
        ({"extra_body": {"strength": 0.01}}, "strength", "strength: got 0.01; allowed: enough"),
        ({"extra_body": {"mask_blur": 2}}, "mask_blur", "mask_blur: got 2.*; allowed: none with"),
        ({"extra_body": {"steps": 3}}, "steps", "steps: got 3; allowed: no field of this name"),
        ({"extra_body": {"seed": "red"}}, "seed", "seed: got 'red'; allowed: a whole number"),
    ],
)
def test_what_cannot_be_is_refused_by_openais_name(client, triton, asked, param, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.images.edit(**{"image": IMAGE, "prompt": "x", **asked})
    assert caught.value.body["param"] == param
    assert triton.requests == []


def test_a_damaged_mask_is_said_of_the_mask_by_the_server_too(client, triton):
    mask, animated = transparent(), io.BytesIO()
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(animated, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(openai.BadRequestError, match="not animated") as caught:
        client.images.edit(image=animated.getvalue(), mask=mask, prompt="x")
    assert caught.value.body["param"] == "image"
    triton.takes_pictures = False
    with pytest.raises(openai.BadRequestError, match="no vae_encoder") as caught:
        client.images.edit(image=IMAGE, prompt="x")
    assert caught.value.body["param"] == "image"


@pytest.mark.parametrize("path", ["/v1/images/edits", "/images/edits", "/v1/images/variations"])
def test_a_body_that_is_no_such_form(gateway, triton, path):
    url = f"{gateway.url}{path}"

    def said(**sent):
        answer = httpx.post(url, **sent)
        assert answer.status_code == 400
        return answer.json()["error"]["message"]

    assert said(json={"prompt": "x"}).startswith("Content-Type: got 'application/json'; allowed: m")
    assert said(content=b"").startswith("Content-Type: got none; allowed: multipart/form-data")
    broken = {"Content-Type": "multipart/form-data"}
    assert "boundary" in said(content=b"x", headers=broken)
    assert said(files={"other": b"x"}).startswith("other: got 'a file'; allowed: a text")
    fields = {} if "variations" in path else {"prompt": (None, "x")}
    text = {**fields, "image": (None, "text")}
    assert said(files=text).startswith("image: got 'text'; allowed: a file")
    assert said(files={**fields, "n": (None, "1")}).startswith("image: got nothing; allowed: a PNG")
    twice = [("n", (None, "1")), ("n", (None, "1")), ("image", IMAGE)]
    assert said(files=twice) == "n: got '2 of them'; allowed: one"
    whole = {**fields, "image": IMAGE}
    elsewhere = {"Origin": "http://evil.example"}
    assert said(files=whole, headers=elsewhere).startswith("Origin: got 'http://evil.example'; all")
    assert triton.requests == []
    assert httpx.post(url, files=whole, headers={"Origin": gateway.url}).status_code == 200


def test_two_large_pictures_fit_and_more_does_not(client, gateway, triton):
    image = grain(10)
    mask = file_of(Image.merge("RGBA", [Image.new("L", (1600, 1600))] * 4), compress_level=0)
    assert 9.9e6 < len(image) < 10 * 2**20 and 9.9e6 < len(mask) < 11e6
    assert client.images.edit(image=image, mask=mask, prompt="x", size="64x64").data
    assert base64.b64decode(triton.requests[0]["image"]) == image
    answer = httpx.post(f"{gateway.url}/v1/images/edits", files={"image": bytes(33 * 2**20)})
    assert answer.status_code == 413
    assert "more than 33554432 bytes" in answer.json()["error"]["message"]
