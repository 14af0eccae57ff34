"""The WebUI's image to image."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.gateway.pictures import decoded, file_of, flat, grain, text, transparent
from triptych.gateway.pictures import filled, fitting
from triptych.picture.metadata import read_settings

IMAGE = flat((64, 72))


def mask_of(size=(64, 72), part=(0, 0, 32, 72)):
    mask = Image.new("L", size)
    mask.paste(255, part)
    return text(file_of(mask))


def asked(**values):
    return {"prompt": "x", "init_images": [text(IMAGE)], **values}


def test_a_client_of_the_webui_changes_a_picture(webui_api, triton):
    image = Image.new("RGB", (64, 72), "teal")
    drawn = webui_api.img2img(
        [image], prompt="x", seed=5, width=128, height=64, denoising_strength=0.5
    )
    assert drawn.image.size == (128, 64)
    (sent,) = triton.requests
    assert (sent["strength"], sent["width"], sent["seed"]) == (0.5, 128, 5)
    assert decoded(sent["image"]).getpixel((9, 9)) == (0, 128, 128)
    assert "mask_image" not in sent
    mask = Image.new("L", (64, 72))
    mask.paste(255, (0, 0, 32, 72))
    webui_api.img2img([image], mask_image=mask, inpaint_full_res_padding=8, width=64, height=72)
    sent = triton.requests[1]
    assert (sent["padding_mask_crop"], sent["mask_blur"]) == (8, 4)
    assert np.array_equal(np.asarray(decoded(sent["mask_image"])), np.asarray(mask))


def test_what_is_left_out_is_the_webuis_and_the_pictures_own_size(webui, triton):
    answer = webui.post("/img2img", json=asked(batch_size=2)).json()
    settings = [read_settings(base64.b64decode(image)) for image in answer["images"]]
    assert [(one.width, one.height, one.strength) for one in settings] == [(64, 72, 0.75)] * 2
    assert triton.requests[0]["image"] == text(IMAGE)
    assert answer["parameters"]["init_images"] is None
    again = webui.post("/img2img", json=asked(include_init_images=True)).json()
    assert again["parameters"]["init_images"] == [text(IMAGE)]
    assert "Denoising strength: 0.75" in json.loads(answer["info"])["infotexts"][0]


@pytest.mark.parametrize(
    ("own", "white"),
    [({}, slice(0, 32)), ({"inpainting_mask_invert": 1}, slice(32, 64))],
)
def test_masks(webui, triton, own, white):
    for mask in (mask_of(), text(transparent((64, 72), (32, 0, 64, 72)))):
        more = {"mask": mask, "inpaint_full_res": False, "inpainting_fill": 1, "mask_blur": 0}
        assert webui.post("/img2img", json=asked(**more, **own)).status_code == 200
        sent = triton.requests[-1]
        expected = np.zeros((72, 64), np.uint8)
        expected[:, white] = 255
        assert np.array_equal(np.asarray(decoded(sent["mask_image"])), expected)
        assert "padding_mask_crop" not in sent and sent["mask_blur"] == 0
        assert sent["image"] == text(IMAGE)


def test_resizing_as_there(webui, triton):
    picture = Image.new("RGB", (128, 64), "red")
    picture.paste("blue", (32, 0, 96, 64))
    size = {"width": 64, "height": 64}
    more = {"init_images": [text(file_of(picture))], "prompt": "x", **size}
    for mode in (0, 1, 2):
        assert webui.post("/img2img", json={**more, "resize_mode": mode}).status_code == 200
    just, cropped, padded = (decoded(one["image"]) for one in triton.requests)
    assert just.size == (128, 64)
    assert np.array_equal(np.asarray(cropped), np.asarray(Image.new("RGB", (64, 64), "blue")))
    assert padded.size == (64, 64)
    assert [padded.getpixel(at) for at in ((2, 2), (32, 2), (2, 61))] == [
        *((255, 0, 0), (0, 0, 255), (255, 0, 0)),
    ]


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_a_picture_of_a_few_pixels_is_refused_for_its_size(webui, triton, mode):
    more = {"init_images": [text(file_of(Image.new("RGB", (4, 100), "red")))], "prompt": "x"}
    answer = webui.post("/img2img", json={**more, "resize_mode": mode})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("init_images: got '"), answer.json()


def test_what_is_painted_anew_starts_from_the_colours_around(webui, triton):
    picture = Image.new("RGB", (64, 72), "red")
    picture.paste("blue", (0, 0, 32, 72))
    more = {"init_images": [text(file_of(picture))], "mask": mask_of()}
    for strength, blue in ((0.5, False), (1, True)):
        answer = webui.post("/img2img", json=asked(**more, denoising_strength=strength))
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
def test_a_field_of_its_own_that_cannot_be_is_refused_as_there(webui, triton, own, field):
    answer = webui.post("/img2img", json=asked(**own))
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
        ({"width": 100}, "width: got 100; allowed: 96 or 104, the nearest sizes"),
        (
            {"init_images": [text(flat((1000, 1000)))]},
            "init_images: got '1000x1000'; a",
        ),
    ],
)
def test_the_servers_refusals_have_the_webuis_names(webui, triton, own, said):
    answer = webui.post("/img2img", json=asked(**own))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(said)
    assert triton.requests == []


def test_two_large_pictures_fit(webui, triton):
    image = text(grain(10))
    more = {"init_images": [image], "mask": image, "inpainting_fill": 1}
    answer = webui.post("/img2img", json=asked(**more, width=64, height=64))
    assert answer.status_code == 200
    assert triton.requests[0]["image"] == image
