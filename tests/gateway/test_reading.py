"""The settings in pictures by Triptych, the WebUI, ComfyUI and InvokeAI."""

import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from triptych.gateway.errors import Problem
from triptych.gateway.reading import read
from triptych.picture.encode import encode
from triptych.picture.infotext import infotext
from triptych.schedulers import NAMES
from triptych.second_pass import SecondPass
from triptych.settings import OUTPUT_FORMATS, Settings

SETTINGS = Settings("a ☀\nand: b, (c:1.2)", "d, e", 20, 7.5, 2**63, 64, 128, "lms", "png")


def png(**texts):
    chunks = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        chunks.add_itxt(name, text if isinstance(text, str) else json.dumps(text))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def own(**changes):
    settings = Settings(**{**vars(SETTINGS), **changes})
    return encode(np.zeros((3, settings.height, settings.width), np.float32), settings)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_our_own_files_of_every_format(output_format):
    found = read(own(output_format=output_format)).settings
    assert (found["prompt"], found["seed"], found["width"]) == (SETTINGS.prompt, 2**63, 128)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("negative", ["", "d, e", "two\nlines"])
def test_the_webuis_text_says_all_that_it_can(name, negative):
    eta = 0.25 if name == "ddim" else None
    changes = {"scheduler": name, "negative_prompt": negative, "eta": eta}
    settings = Settings(**{**vars(SETTINGS), **changes})
    found = read(png(parameters=infotext(settings))).settings
    assert found.pop("prompt_syntax") == "webui"
    assert found == {key: getattr(settings, key) for key in found}
    said = {key for key, value in vars(settings).items() if value is not None}
    assert set(found) == said - {"output_format", "warnings", "prompt_syntax"}


def test_a_jpeg_of_the_webui():
    tags = Image.Exif()
    comment = b"UNICODE\0" + infotext(SETTINGS).encode("utf-16-be")
    tags.get_ifd(0x8769)[0x9286] = comment
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=tags)
    assert read(file.getvalue()).settings["prompt"] == SETTINGS.prompt


def test_a_text_of_the_webui_with_much_that_is_not_known_here():
    text = (
        "masterpiece\nSteps: 25, Sampler: DPM++ SDE Exotic, CFG scale: 7, Seed: 1, Size: 512x768,"
        ' Model hash: 6ce0161689, Lora hashes: "a: 1, Steps: 9", Hires upscale: 2, Version: v1.9.4'
    )
    assert read(png(parameters=text)).settings == {
        "prompt": "masterpiece",
        "negative_prompt": "",
        "num_inference_steps": 25,
        "guidance_scale": 7,
        "seed": 1,
        "width": 512,
        "height": 768,
        "prompt_syntax": "webui",
        "warnings": [
            "scheduler: the picture's sampler is not one of those here",
            "not taken from the picture: Hires upscale 2",
        ],
    }


def test_a_picture_that_was_drawn_once_more_says_how():
    second = SecondPass(128, 192, 0.5, 8, "bilinear")
    found = read(own(second_pass=second)).settings
    assert found["second_pass"] == second._asdict() and not found["warnings"]


def test_a_picture_that_began_from_another_says_that_this_is_not_in_it():
    (warning,) = read(own(strength=0.5)).settings["warnings"]
    assert warning == "strength: this picture began from another one, which its file does not hold"
    settings = Settings(**{**vars(SETTINGS), "strength": 0.5})
    (warning,) = read(png(parameters=infotext(settings))).settings["warnings"]
    assert warning == "not taken from the picture: Denoising strength 0.5"


@pytest.mark.parametrize(
    ("said", "clip_skip"), [("", None), (", Clip skip: 1", None), (", Clip skip: 2", 1)]
)
def test_clip_skip_of_the_webui_counts_from_one(said, clip_skip):
    found = read(png(parameters=f"a fox\nSteps: 25, Seed: 1{said}")).settings
    assert found.get("clip_skip") == clip_skip
    settings = Settings(**{**vars(SETTINGS), "clip_skip": clip_skip})
    assert read(png(parameters=infotext(settings))).settings.get("clip_skip") == clip_skip


GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 8566257,
            "steps": 20,
            "cfg": 8,
            "sampler_name": "uni_pc",
            "denoise": 1,
            "scheduler": "normal",
            "positive": ["9", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["4", 1]}},
    "8": {"class_type": "PrimitiveString", "inputs": {"string": "text, watermark"}},
    "9": {"class_type": "ControlNetApply", "inputs": {"conditioning": ["6", 0], "strength": 1}},
}


def test_a_graph_of_comfyui():
    assert read(png(prompt=GRAPH, workflow={"nodes": []})).settings == {
        "prompt": "a fox",
        "negative_prompt": "text, watermark",
        "num_inference_steps": 20,
        "guidance_scale": 8,
        "seed": 8566257,
        "width": 512,
        "height": 768,
        "scheduler": "unipc",
    }


def test_invokeais_metadata():
    metadata = {
        "positive_prompt": "a fox",
        "negative_prompt": None,
        "steps": 30,
        "cfg_scale": 7.5,
        "seed": 3,
        "width": 512,
        "height": 512,
        "scheduler": "euler_a",
    }
    found = read(png(invokeai_metadata=metadata)).settings
    assert found["scheduler"] == "euler_ancestral"
    assert (found["prompt"], found["negative_prompt"], found["seed"]) == ("a fox", "", 3)


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"prompt": {"1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}}}},
        {
            "prompt": {"3": {"inputs": {"positive": ["3", 0], "steps": None, "text": 3}}},
            "workflow": {},
        },
        {"prompt": "a prompt by nobody"},
        {"parameters": '{"sui_image_params": {"prompt": "x"}}'},
        {"parameters": "Steps"},
        {"invokeai_metadata": [1]},
    ],
)
def test_a_file_that_does_not_say_gives_no_prompt(texts):
    try:
        prompt = read(png(**texts)).settings["prompt"]
    except Problem as problem:
        assert problem.field == "image"
    else:
        assert prompt == ""


def test_the_pixels_of_a_png_are_not_decoded_for_its_text():
    text = "a circle\nSteps: 5, Sampler: Euler a, Size: 64x72"
    file = png(parameters=text)
    pixels = file.index(b"IDAT") + 4
    damaged = file[:pixels] + b"damaged" + file[pixels + 7 :]
    assert read(damaged).settings["num_inference_steps"] == 5


@pytest.mark.parametrize("file", [b"", b"GIF89a", png()[:40], b"\xff\xd8\xff\xe1" + b"\0" * 90])
def test_what_is_no_picture_is_said(file):
    with pytest.raises(Problem, match="image: ") as caught:
        read(file)
    assert caught.value.status_code == 400


def test_the_page_sends_the_file_itself(gateway):
    file = own()
    answer = httpx.post(f"{gateway.url}/api/settings", content=file)
    assert answer.json()["seed"] == str(2**63)
    assert httpx.post(f"{gateway.url}/api/settings", content=b"x").json()["field"] == "image"
    large = file + bytes(2 * 1024 * 1024)
    assert httpx.post(f"{gateway.url}/api/settings", content=large).status_code == 200
    too_large = bytes(33 * 1024 * 1024)
    assert httpx.post(f"{gateway.url}/api/settings", content=too_large).status_code == 413
