"""The WebUI's second pass at a larger size."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest
import webuiapi

from tests.gateway.pictures import decoded, flat
from tests.gateway.running import wait_for
from triptych.gateway.webui_hires import TextToImage, draw_twice
from triptych.streaming import Step


def hires(**values):
    """A request whose pictures pass through pixels between the two."""
    usual = {"width": 64, "height": 72, "steps": 10, "hr_upscaler": "Lanczos"}
    return {"prompt": "x", "enable_hr": True, **usual, **values}


def test_a_second_pass_starts_from_the_first_ones_picture(webui, triton):
    more = {"denoising_strength": 0.5, "seed": 7, "batch_size": 2, "hr_prompt": "y"}
    answer = webui.post("/txt2img", json=hires(**more)).json()
    assert [decoded(one).size for one in answer["images"]] == [(128, 144)] * 2
    assert json.loads(answer["info"])["all_seeds"] == [7, 8]
    first, second = ([one for one in triton.requests if one["prompt"] == text] for text in "xy")
    assert len(first) == 2
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
def test_sizes_and_steps_of_the_second_pass(webui, triton, own, size, steps):
    answer = webui.post("/txt2img", json=hires(**own)).json()
    assert [decoded(one).size for one in answer["images"]] == [size]
    assert triton.requests[0]["output_format"] == "png"
    assert triton.requests[1]["num_inference_steps"] == steps
    made = int(steps * triton.requests[1]["strength"])
    assert made == own.get("hr_second_pass_steps", 10)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"hr_upscaler": "ESRGAN"}, "hr_upscaler: got 'ESRGAN'; allowed: Latent, Latent (bicubic)"),
        ({"hr_upscaler": "Latent (antialiased)"}, "hr_upscaler: got 'Latent (antialiased)'; allo"),
        (
            {"hr_upscaler": "Latent", "hr_prompt": "y"},
            "hr_prompt: got 'y'; allowed: the first pass's with Latent, or nothing",
        ),
        (
            {"hr_upscaler": "Latent", "hr_negative_prompt": "y"},
            "hr_negative_prompt: got 'y'; allowed: the first",
        ),
        (
            {"hr_upscaler": None, "hr_scale": 8, "width": 256},
            "hr_scale: got 8, a height of 576; allowed: a whole number",
        ),
        (
            {"hr_upscaler": "Latent", "hr_resize_y": 100},
            "hr_resize_y: got 100, a height of 100; allowed: 96 or 104",
        ),
        (
            {"hr_upscaler": "Latent", "denoising_strength": 0.01},
            "hr_second_pass_steps: got 0, with a denoising_strength of 0.01 1000 num_inference",
        ),
        (
            {"hr_scale": 8, "width": 256},
            "hr_scale: got 8, a height of 576; allowed: a whole number",
        ),
        ({"hr_resize_y": 100}, "hr_resize_y: got 100, a height of 100; allowed: 96 or 104"),
        ({"denoising_strength": 0}, "denoising_strength: got 0; allowed: over 0 to 1"),
        (
            {"denoising_strength": 0.01},
            "hr_second_pass_steps: got 0, with a denoising_strength of 0.01 1000 num_inference",
        ),
        (
            {"denoising_strength": 1e-320},
            "hr_second_pass_steps: got 0, with a denoising_strength of 9.99989e-321 1000001 num",
        ),
        ({"steps": 201}, "steps: got 201; allowed: "),
    ],
)
def test_a_second_pass_that_cannot_be_is_refused_before_the_first(webui, triton, own, said):
    answer = webui.post("/txt2img", json=hires(**own))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(said)
    assert triton.requests == []
    assert webui.post("/txt2img", json={**hires(**own), "enable_hr": False}).status_code == (
        400 if "steps" in own else 200
    )


def test_the_webuis_own_upscaler_is_that_of_latents_in_one_request(webui, triton):
    triton.takes_pictures = False  # none is needed
    usual = hires(seed=7, batch_size=2)
    del usual["hr_upscaler"]
    answer = webui.post("/txt2img", json=usual).json()
    assert sorted(one["seed"] for one in triton.requests) == [7, 8]
    second = {"width": 128, "height": 144, "strength": 0.75, "num_inference_steps": 14}
    for one in triton.requests:
        assert (one["width"], one["height"], one["num_inference_steps"]) == (64, 72, 10)
        assert one["second_pass"] == {**second, "interpolation": "bilinear"}
    line = "Denoising strength: 0.75, Hires resize: 128x144, Hires steps: 10, "
    line += "Hires upscaler: Latent"
    assert json.loads(answer["info"])["infotexts"][0].endswith(line)


@pytest.mark.parametrize(
    ("own", "second"),
    [
        ({"hr_upscaler": "Latent (bicubic)"}, {"interpolation": "bicubic"}),
        ({"hr_upscaler": "Latent (nearest)", "hr_prompt": "x"}, {"interpolation": "nearest"}),
        ({"hr_upscaler": "Latent (nearest-exact)"}, {"interpolation": "nearest-exact"}),
        ({"hr_upscaler": "Latent", "hr_resize_x": 96}, {"width": 96, "height": 104}),
        (
            {"hr_upscaler": "Latent", "hr_second_pass_steps": 3, "denoising_strength": 0.5},
            {"num_inference_steps": 6, "strength": 0.5},
        ),
    ],
)
def test_what_the_pass_from_latents_is_asked_for(webui, triton, own, second):
    assert webui.post("/txt2img", json=hires(**own)).status_code == 200
    (request,) = triton.requests
    assert request["second_pass"] == {**request["second_pass"], **second}


def test_the_upscalers_are_listed_where_the_webui_lists_them(webui):
    names = [one["name"] for one in webui.get("/latent-upscale-modes").json()]
    modes = ["Latent", "Latent (bicubic)", "Latent (nearest)", "Latent (nearest-exact)"]
    assert names == modes
    assert [one["name"] for one in webui.get("/upscalers").json()] == ["Lanczos", "Nearest"]


def test_a_model_without_an_encoder_has_no_second_pass_through_pixels(webui, triton):
    triton.takes_pictures = False
    answer = webui.post("/txt2img", json=hires())
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("enable_hr: got true; allowed: none: this model has")
    assert triton.requests == []


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


def test_a_client_of_the_webui_draws_twice(webui_api, triton):
    lanczos = webuiapi.HiResUpscaler.Lanczos
    drawn = webui_api.txt2img(prompt="x", enable_hr=True, hr_upscaler=lanczos, width=64, height=64)
    assert drawn.image.size == (128, 128)
    webui_api.txt2img(prompt="x", width=64, height=64)
    webui_api.txt2img(prompt="x", enable_hr=True, width=64, height=64)  # its own is Latent
    assert len(triton.requests) == 4 and triton.requests[3]["second_pass"]["width"] == 128


def test_interrupting_ends_the_passes(webui, triton):
    answers = []
    triton.hold.clear()
    drawing = threading.Thread(target=lambda: answers.append(webui.post("/txt2img", json=hires())))
    drawing.start()
    wait_for(lambda: len(triton.requests) == 1)
    assert webui.post("/interrupt").status_code == 200
    drawing.join(10)
    assert answers[0].json()["images"] == []
    wait_for(lambda: triton.left == 1)
    assert len(triton.requests) == 1
