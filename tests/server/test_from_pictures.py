"""Requests that bring pictures, served."""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.gateway.pictures import grain
from tests.gateway.running import Gateway
from tests.server.calls import Calls, metrics, metrics_when, pixels, request
from triptych.client import Client, GivenUp, Picture, Refused, TimedOut
from triptych.picture.metadata import read_settings
from triptych.pipeline import Pipeline
from triptych.streaming import Step

IN_FLIGHT = ("triptych_images_in_flight", "unet_loop")
ENCODED = ("nv_inference_count", "vae_encoder")
USUAL = {"num_inference_steps": 6, "seed": 5, "scheduler": "ddim"}
PROMPT = "a red circle on a blue background"


def file_of(size=(96, 64), kind="PNG", seed=0):
    patches = np.random.RandomState(seed).randint(0, 256, (4, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.BICUBIC).save(file, kind)
    return file.getvalue()


def mask_of(size=(96, 64)):
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1] // 2))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


IMAGE, MASK = file_of(), mask_of()
KINDS = (
    {"image": IMAGE},
    {"image": IMAGE, "strength": 0.5, "scheduler": "euler_ancestral"},
    {"image": file_of(kind="JPEG"), "mask_image": MASK},
    {"image": IMAGE, "mask_image": MASK, "mask_blur": 2, "strength": 0.7, "scheduler": "heun"},
    {
        "image": file_of((160, 120)),
        "mask_image": mask_of((160, 120)),
        "padding_mask_crop": 8,
        "height": 64,
        "width": 96,
    },
    {"second_pass": {"height": 96, "width": 128, "strength": 0.5}},
    {},
)


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc) as made:
        yield made


def asked(**values):
    """INPUT_0."""
    texts = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in values.items()
    }
    size = {} if "image" in texts else {"height": 64, "width": 96}
    return request(PROMPT, **{**USUAL, **size, **texts})


def test_the_server_gives_what_one_process_gives_and_company_changes_no_byte(repository, server):
    expected = Pipeline(repository).draw(*(asked(**kind).decode() for kind in KINDS))
    calls = Calls(server.grpc)
    alone = [calls.pictures(asked(**kind))[0] for kind in KINDS]
    assert alone == expected
    with ThreadPoolExecutor(len(KINDS)) as pool:
        together = list(pool.map(lambda kind: calls.pictures(asked(**kind))[0], KINDS))
    assert together == alone
    batch = calls.pictures(asked(**KINDS[0]), asked(**KINDS[-1]), asked(**KINDS[2]))
    assert batch == [alone[0], alone[-1], alone[2]]
    calls.close()
    sizes = [pixels(file).shape[:2] for file in alone]
    assert sizes == [(64, 96)] * 4 + [(120, 160), (96, 128), (64, 96)]
    assert len(set(alone)) == len(alone)
    told = read_settings(alone[3])
    assert (told.strength, told.mask_blur, told.padding_mask_crop) == (0.7, 2.0, None)
    assert base64.b64encode(IMAGE)[:40] not in alone[0] and IMAGE[60:120] not in alone[0]


def test_a_request_without_a_picture_never_calls_the_encoder(server):
    calls = Calls(server.grpc)
    before = metrics(server.metrics).get(ENCODED, 0)
    calls.pictures(asked())
    calls.pictures(asked(image=IMAGE))
    found = metrics_when(server.metrics, lambda told: told.get(ENCODED, 0) > before)
    assert found[ENCODED] == before + 1
    calls.close()


def test_outside_the_crop_the_picture_is_the_one_that_came(server):
    size = (160, 120)
    came = file_of(size)
    with Client(server.grpc) as client:
        values = {"mask_image": mask_of(size), "padding_mask_crop": 8, "height": 64, "width": 96}
        picture = client.generate(PROMPT, image=came, **values, **USUAL)
    drawn, original = (
        np.asarray(one.convert("RGB")) for one in (picture.image, Image.open(io.BytesIO(came)))
    )
    np.testing.assert_array_equal(drawn[60:], original[60:])
    np.testing.assert_array_equal(drawn[:, 80:], original[:, 80:])
    assert not np.array_equal(drawn[:60, :80], original[:60, :80])


def test_a_stream_tells_the_calls_that_are_made(client):
    settings = {**USUAL, "num_inference_steps": 10, "strength": 0.5}
    *steps, picture = client.stream(PROMPT, 60, 2, image=IMAGE, **settings)
    assert isinstance(picture, Picture) and all(isinstance(one, Step) for one in steps)
    assert {one.total for one in steps} == {5} and steps[-1].step == 5
    assert picture.file == client.generate(PROMPT, 60, image=IMAGE, **settings).file


def test_a_stream_tells_the_calls_of_both_passes(client):
    second = {"width": 128, "height": 64, "strength": 0.5, "num_inference_steps": 8}
    settings = {**USUAL, "width": 64, "height": 64, "second_pass": second}
    *steps, picture = client.stream(PROMPT, 60, 2, **settings)
    assert {one.total for one in steps} == {10} and steps[-1].step == 10
    assert picture.image.size == (128, 64)
    assert picture.settings.second_pass._asdict() == {**second, "interpolation": "bilinear"}
    assert client.generate(PROMPT, 60, **settings).file == picture.file


def test_what_is_given_up_or_too_late_ends(client, server):
    long = {**USUAL, "num_inference_steps": 200, "strength": 1.0, "image": file_of((256, 256))}
    stream = client.stream(PROMPT, 60, **long)
    told = iter(stream)
    assert isinstance(next(told), Step)
    stream.cancel()
    with pytest.raises(GivenUp):
        list(told)
    with pytest.raises(TimedOut):
        client.generate(PROMPT, 1.0, **long)
    deadline = time.monotonic() + 10
    while metrics(server.metrics)[IN_FLIGHT] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert metrics(server.metrics)[IN_FLIGHT] == 0


@pytest.mark.parametrize(
    "values, message",
    [
        ({"image": IMAGE[:300]}, "image: got .* that is whole"),
        ({"image": b"nothing"}, "image: got b'nothing'; allowed: a PNG, JPEG or WebP file"),
        ({"image": IMAGE, "mask_image": MASK[:80]}, "mask_image: got .*; allowed: a PNG"),
        ({"image": IMAGE, "strength": 0.1}, "strength: got 0.1; allowed: .* 6 steps"),
        ({"strength": 0.5}, "strength: got 0.5; allowed: none without image"),
        ({"mask_image": MASK}, "mask_image: got .*; allowed: none without image"),
        ({"image": file_of((1000, 64))}, "image: got '1000x64'; allowed: with no width"),
        ({"image": bytes(11 * 2**20)}, "image: got .* allowed: base64 of .* 10485760 bytes"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(client, values, message):
    with pytest.raises(Refused, match=message):
        client.generate(PROMPT, 60, **{**USUAL, **values})


def test_a_picture_of_ten_megabytes_arrives(client):
    size = {"height": 64, "width": 64}
    assert client.generate(PROMPT, 60, image=grain(10), **size, **USUAL).image.size == (64, 64)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_edits_through_the_gateway_are_the_servers_pictures(client, server):
    """A picture of ten megabytes comes through too."""
    cut_out = Image.new("RGBA", (96, 64))
    cut_out.paste("red", (48, 0, 96, 64))
    cut_out.paste("red", (0, 32, 96, 64))
    mask = io.BytesIO()
    cut_out.save(mask, "PNG")
    with Gateway(server.grpc) as gateway:
        web = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
        edit = web.images.edit(image=IMAGE, mask=mask.getvalue(), prompt=PROMPT, extra_body=USUAL)
        drawn = client.generate(PROMPT, 60, image=IMAGE, mask_image=MASK, **USUAL)
        assert base64.b64decode(edit.data[0].b64_json) == drawn.file
        large = {"image": grain(10), "size": "64x64", "extra_body": USUAL}
        (item,) = web.images.create_variation(**large).data
        assert item.settings["strength"] == 0.6 and item.settings["width"] == 64


def test_the_webuis_image_to_image_and_second_pass_are_the_servers_pictures(client, server):
    asked = {"prompt": PROMPT, "steps": 6, "seed": 5, "sampler_name": "DDIM"}
    picture = {"init_images": [base64.b64encode(IMAGE).decode()], "denoising_strength": 0.5}
    second = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Nearest", "width": 64, "height": 64}
    with Gateway(server.grpc) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as web:
        (changed,) = web.post("/sdapi/v1/img2img", json={**asked, **picture}).json()["images"]
        (large,) = web.post("/sdapi/v1/txt2img", json={**asked, **second}).json()["images"]
        latent = {**asked, **second, "hr_upscaler": "Latent"}
        (from_latents,) = web.post("/sdapi/v1/txt2img", json=latent).json()["images"]
    words = {**USUAL, "prompt_syntax": "webui"}
    drawn = client.generate(PROMPT, 60, image=IMAGE, strength=0.5, **words)
    assert base64.b64decode(changed) == drawn.file
    own = {"width": 128, "height": 128, "strength": 0.75, "num_inference_steps": 8}
    drawn = client.generate(PROMPT, 60, width=64, height=64, second_pass=own, **words)
    assert base64.b64decode(from_latents) == drawn.file
    first = client.generate(PROMPT, 60, width=64, height=64, **words).image
    start = io.BytesIO()
    first.resize((128, 128), Image.NEAREST).save(start, "PNG")
    more = {**words, "strength": 0.75, "num_inference_steps": 8}
    drawn = client.generate(PROMPT, 60, image=start.getvalue(), **more)
    assert pixels(base64.b64decode(large)).tolist() == pixels(drawn.file).tolist()
