"""The WebUI's image to image, and its second pass at a larger size."""

import asyncio
import base64
import io
import json
import threading
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import webuiapi
from PIL import Image

from tests.gateway.pictures import file_of, flat, grain, transparent
from tests.gateway.running import wait_for
from triptych.gateway.pictures import filled, fitting
from triptych.gateway.webui_hires import TextToImage, draw_twice
from triptych.picture.metadata import read_settings
from triptych.streaming import Step

IMAGE = flat((64, 72))


def text(file):
    return base64.b64encode(file).decode()


def decoded(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def mask_of(size=(64, 72), part=(0, 0, 32, 72)):
    mask = Image.new("L", size)
    mask.paste(255, part)
    return text(file_of(mask))


@pytest.fixture
def client(gateway):
    with httpx.Client(base_url=f"{gateway.url}/sdapi/v1", timeout=60) as client:
        yield client


@pytest.fixture
def api(gateway):
    address = httpx.URL(gateway.url)
    return webuiapi.WebUIApi(host=address.host, port=address.port, sampler="DDIM", steps=4)


def asked(**values):
    return {"prompt": "x", "init_images": [text(IMAGE)], **values}


def test_a_client_of_the_webui_changes_a_picture(api, triton):
    image = Image.new("RGB", (64, 72), "teal")
    drawn = api.img2img([image], prompt="x", seed=5, width=128, height=64, denoising_strength=0.5)
    assert drawn.image.size == (128, 64)
    (sent,) = triton.requests
    assert (sent["strength"], sent["width"], sent["seed"]) == (0.5, 128, 5)
    assert decoded(sent["image"]).getpixel((9, 9)) == (0, 128, 128)
    assert "mask_image" not in sent
    mask = Image.new("L", (64, 72))
    mask.paste(255, (0, 0, 32, 72))
    api.img2img([image], mask_image=mask, inpaint_full_res_padding=8, width=64, height=72)
    sent = triton.requests[1]
    assert (sent["padding_mask_crop"], sent["mask_blur"]) == (8, 4)
    assert np.array_equal(np.asarray(decoded(sent["mask_image"])), np.asarray(mask))


def test_what_is_left_out_is_the_webuis_and_the_pictures_own_size(client, triton):
    answer = client.post("/img2img", json=asked(batch_size=2)).json()
    settings = [read_settings(base64.b64decode(image)) for image in answer["images"]]
    assert [(one.width, one.height, one.strength) for one in settings] == [(64, 72, 0.75)] * 2
    assert triton.requests[0]["image"] == text(IMAGE)
    assert answer["parameters"]["init_images"] is None
    again = client.post("/img2img", json=asked(include_init_images=True)).json()
    assert again["parameters"]["init_images"] == [text(IMAGE)]
    assert "Denoising strength: 0.75" in json.loads(answer["info"])["infotexts"][0]


@pytest.mark.parametrize(
    ("own", "white"),
    [({}, slice(0, 32)), ({"inpainting_mask_invert": 1}, slice(32, 64))],
)
def test_masks(client, triton, own, white):
    for mask in (mask_of(), text(transparent((64, 72), (32, 0, 64, 72)))):
        more = {"mask": mask, "inpaint_full_res": False, "inpainting_fill": 1, "mask_blur": 0}
        assert client.post("/img2img", json=asked(**more, **own)).status_code == 200
        sent = triton.requests[-1]
        expected = np.zeros((72, 64), np.uint8)
        expected[:, white] = 255
        assert np.array_equal(np.asarray(decoded(sent["mask_image"])), expected)
        assert "padding_mask_crop" not in sent and sent["mask_blur"] == 0
        assert sent["image"] == text(IMAGE)


def test_resizing_as_there(client, triton):
    picture = Image.new("RGB", (128, 64), "red")
    picture.paste("blue", (32, 0, 96, 64))
    size = {"width": 64, "height": 64}
    more = {"init_images": [text(file_of(picture))], "prompt": "x", **size}
    for mode in (0, 1, 2):
        assert client.post("/img2img", json={**more, "resize_mode": mode}).status_code == 200
    just, cropped, padded = (decoded(one["image"]) for one in triton.requests)
    assert just.size == (128, 64)
    assert np.array_equal(np.asarray(cropped), np.asarray(Image.new("RGB", (64, 64), "blue")))
    assert padded.size == (64, 64)
    assert [padded.getpixel(at) for at in ((2, 2), (32, 2), (2, 61))] == [
        *((255, 0, 0), (0, 0, 255), (255, 0, 0)),
    ]


def test_what_is_painted_anew_starts_from_the_colours_around(client, triton):
    picture = Image.new("RGB", (64, 72), "red")
    picture.paste("blue", (0, 0, 32, 72))
    more = {"init_images": [text(file_of(picture))], "mask": mask_of()}
    for strength, blue in ((0.5, False), (1, True)):
        answer = client.post("/img2img", json=asked(**more, denoising_strength=strength))
        assert answer.status_code == 200
        sent = decoded(triton.requests[-1]["image"])
        assert sent.getpixel((8, 36)) == ((0, 0, 255) if blue else (255, 0, 0))


def test_filling_takes_the_nearest_and_keeps_the_rest():
    picture = Image.new("RGB", (67, 41), "red")
    picture.paste("lime", (50, 0, 67, 41))
    mask = Image.new("L", picture.size)
    mask.paste(255, (20, 0, 50, 41))
    done = np.asarray(filled(picture, mask)).astype(int)
    assert np.array_equal(done[:, :20], np.asarray(picture)[:, :20])
    assert np.array_equal(done[:, 50:], np.asarray(picture)[:, 50:])
    assert (done[:, 20:24, 0] > 200).all() and (done[:, 46:50, 1] > 200).all()
    assert done[:, 20:50].sum(axis=2).min() > 200
    white = filled(picture, Image.new("L", picture.size, 255))
    assert white.size == picture.size


def test_a_picture_too_large_as_a_png_goes_as_a_jpeg():
    noise = Image.open(io.BytesIO(grain(13)))
    assert fitting(noise).startswith(b"\xff\xd8")
    assert fitting(noise.crop((0, 0, 64, 64))).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("own", "field"),
    [
        ({"init_images": []}, "init_images"),
        ({"init_images": [text(IMAGE)] * 2}, "init_images"),
        ({"resize_mode": 3}, "resize_mode"),
        ({"inpainting_fill": 2}, "inpainting_fill"),
        ({"mask_blur": 300}, "mask_blur"),
        ({"mask_blur_x": 8}, "mask_blur_x"),
        ({"denoising_strength": 1.5}, "denoising_strength"),
        ({"latent_mask": "x"}, "latent_mask"),
        ({"initial_noise_multiplier": 0.5}, "initial_noise_multiplier"),
        ({"restore_faces": True}, "restore_faces"),
    ],
)
def test_a_field_of_its_own_that_cannot_be_is_refused_as_there(client, triton, own, field):
    answer = client.post("/img2img", json=asked(**own))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"].startswith("got ")
    assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert triton.requests == []


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"init_images": ["%"]}, "init_images: got '%'; allowed: base64"),
        ({"init_images": [text(b"GIF89a")]}, "init_images: got b'GIF89a'; allowed: a PNG"),
        ({"mask": text(b"GIF89a")}, "mask: got b'GIF89a'; allowed: a PNG"),
        ({"denoising_strength": 0}, "denoising_strength: got 0.0; allowed: enough for a step"),
        ({"steps": 201}, "steps: got 201; allowed: an integer"),
        ({"width": 100}, "width: got 100; allowed: a multiple of 8"),
        (
            {"init_images": [text(flat((1000, 1000)))]},
            "init_images: got '1000x1000'; a",
        ),
    ],
)
def test_the_servers_refusals_have_the_webuis_names(client, triton, own, said):
    answer = client.post("/img2img", json=asked(**own))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(said)
    assert triton.requests == []


def test_two_large_pictures_fit(client, triton):
    image = text(grain(10))
    more = {"init_images": [image], "mask": image, "inpainting_fill": 1}
    answer = client.post("/img2img", json=asked(**more, width=64, height=64))
    assert answer.status_code == 200
    assert triton.requests[0]["image"] == image


def hires(**values):
    return {"prompt": "x", "enable_hr": True, "width": 64, "height": 72, "steps": 10, **values}


def test_a_second_pass_starts_from_the_first_ones_picture(client, triton):
    more = {"denoising_strength": 0.5, "seed": 7, "batch_size": 2, "hr_prompt": "y"}
    answer = client.post("/txt2img", json=hires(**more)).json()
    assert [decoded(one).size for one in answer["images"]] == [(128, 144)] * 2
    assert json.loads(answer["info"])["all_seeds"] == [7, 8]
    first, second = triton.requests[:2], triton.requests[2:]
    assert {one["prompt"] for one in first} == {"x"}
    assert not any("image" in one or "strength" in one for one in first)
    assert sorted(one["seed"] for one in second) == [7, 8]
    for one in second:
        assert (one["prompt"], one["strength"], one["num_inference_steps"]) == ("y", 0.5, 20)
        start = decoded(one["image"])
        assert start.size == (128, 144) and start.getpixel((60, 60)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("own", "size", "steps"),
    [
        ({}, (128, 144), 14),
        ({"hr_scale": 1.3}, (80, 88), 14),
        ({"hr_resize_x": 96}, (96, 104), 14),
        ({"hr_resize_y": 144, "hr_upscaler": "Nearest"}, (128, 144), 14),
        ({"hr_resize_x": 128, "hr_resize_y": 72}, (128, 72), 14),
        ({"hr_second_pass_steps": 29, "denoising_strength": 0.29}, (128, 144), 101),
        ({"override_settings": {"samples_format": "jpg"}}, (128, 144), 14),
    ],
)
def test_sizes_and_steps_of_the_second_pass(client, triton, own, size, steps):
    answer = client.post("/txt2img", json=hires(**own)).json()
    assert [decoded(one).size for one in answer["images"]] == [size]
    assert triton.requests[0]["output_format"] == "png"
    assert triton.requests[1]["num_inference_steps"] == steps
    made = int(steps * triton.requests[1]["strength"])
    assert made == own.get("hr_second_pass_steps", 10)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"hr_upscaler": "Latent"}, "hr_upscaler: got 'Latent'; allowed: Lanczos, Nearest: "),
        ({"hr_scale": 8, "width": 256}, "hr_scale: got 8, a height of 576; allowed: a multiple"),
        ({"hr_resize_y": 100}, "hr_resize_y: got 100, a height of 100; allowed: a multiple of 8"),
        ({"denoising_strength": 0}, "denoising_strength: got 0; allowed: over 0 to 1"),
        (
            {"denoising_strength": 0.01},
            "hr_second_pass_steps: got 0, with a denoising_strength of 0.01 1000 num_inference",
        ),
        ({"steps": 201}, "steps: got 201; allowed: "),
    ],
)
def test_a_second_pass_that_cannot_be_is_refused_before_the_first(client, triton, own, said):
    answer = client.post("/txt2img", json=hires(**own))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(said)
    assert triton.requests == []
    assert client.post("/txt2img", json={**hires(**own), "enable_hr": False}).status_code == (
        400 if "steps" in own else 200
    )


def test_a_model_without_an_encoder_has_no_second_pass(client, triton):
    triton.takes_pictures = False
    answer = client.post("/txt2img", json=hires())
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("enable_hr: got true; allowed: none: this model has")
    assert triton.requests == []
    assert client.post("/img2img", json=asked()).json()["detail"].startswith("init_images: got ")


def test_progress_is_that_of_both_passes():
    seen = []

    class Stub:
        usual = SimpleNamespace(width=64, height=64, num_inference_steps=10)
        client = SimpleNamespace(settings_of=lambda **_: Stub.usual)

        async def ask(self, question):
            return question()

        async def draw(self, requests, watch, preview_every):
            for step in range(1, 4):
                watch(0, Step(step, 3, None))
            return [SimpleNamespace(file=flat())]

    def watch(number, step):
        seen.append((step.step, step.total))

    drawing = draw_twice(Stub(), TextToImage(**hires()), [{"prompt": "x"}], watch, 3)
    asyncio.run(drawing)
    assert seen == [(1, 13), (2, 13), (3, 13), (4, 6), (5, 6), (6, 6)]


def test_a_client_of_the_webui_draws_twice(api, triton):
    lanczos = webuiapi.HiResUpscaler.Lanczos
    drawn = api.txt2img(prompt="x", enable_hr=True, hr_upscaler=lanczos, width=64, height=64)
    assert drawn.image.size == (128, 128)
    api.txt2img(prompt="x", width=64, height=64)
    with pytest.raises(RuntimeError, match="hr_upscaler"):
        api.txt2img(prompt="x", enable_hr=True, width=64, height=64)
    assert len(triton.requests) == 3


def test_interrupting_ends_the_passes(client, triton):
    answers = []
    triton.hold.clear()
    drawing = threading.Thread(target=lambda: answers.append(client.post("/txt2img", json=hires())))
    drawing.start()
    wait_for(lambda: len(triton.requests) == 1)
    assert client.post("/interrupt").status_code == 200
    drawing.join(10)
    assert answers[0].json()["images"] == []
    wait_for(lambda: triton.left == 1)
    assert len(triton.requests) == 1
