"""Images that start from pictures against diffusers' pipelines, with the same random weights.

The weights go through the export and the whole of `triptych.pipeline`.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from diffusers_reference import PLAIN, made
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1] / "full"))

from random_models import louder, write_model

from triptych.pipeline import Pipeline
from triptych_export.cli import main
from triptych_export.picture import psnr

LEAST = 40.0
SIZES = ((64, 96), (96, 64))
GUIDANCE = (1.0, 7.5)
STRENGTHS = (0.2, 0.5, 0.8, 1.0)
STEPS = 6
PROMPT = "red blue"


def colours(width, height, seed=0):
    """Patches of colour."""
    random = np.random.RandomState(seed)
    patches = random.randint(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.BICUBIC)


def mask_of(width, height):
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 :] = 255
    return Image.fromarray(mask).convert("RGB")


def text(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Both:
    """A model as diffusers runs it and as we do."""

    def __init__(self, folder, in_channels):
        source = louder(write_model(folder / "source", in_channels=in_channels))
        assert main([str(source), "--output", str(folder / "served")]) == 0
        self.ours = Pipeline(folder / "served")
        kind = StableDiffusionInpaintPipeline
        none = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
        self.inpaint = kind.from_pretrained(source, **none, requires_safety_checker=False)
        parts = self.inpaint.components
        self.img2img = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
        self.config = self.inpaint.scheduler.config
        for one in (self.inpaint, self.img2img):
            one.set_progress_bar_config(disable=True)

    def theirs(self, name, seed, **values):
        if "mask_image" in values:
            pipeline = self.inpaint
            values.setdefault("height", values["image"].height)
            values.setdefault("width", values["image"].width)
        else:
            pipeline = self.img2img
        pipeline.scheduler = made(name, self.config)
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad():
            done = pipeline(
                PROMPT,
                generator=generator,
                eta=0.3 if name == "tcd" else 0.0,
                num_inference_steps=STEPS,
                **values,
            )
        return np.asarray(done.images[0])

    def mine(self, name, seed, **values):
        values = {key: text(v) if isinstance(v, Image.Image) else v for key, v in values.items()}
        request = {"prompt": PROMPT, "scheduler": name, "seed": seed, "num_inference_steps": STEPS}
        (file,) = self.ours.draw(json.dumps({**request, **values}))
        return np.asarray(Image.open(io.BytesIO(file)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    diffusers.logging.set_verbosity_error()
    return Both(tmp_path_factory.mktemp("four"), 4)


@pytest.fixture(scope="module")
def inpainting_model(tmp_path_factory):
    diffusers.logging.set_verbosity_error()
    return Both(tmp_path_factory.mktemp("nine"), 9)


def cases(name):
    for number, case in enumerate(itertools.product(STRENGTHS, SIZES, GUIDANCE)):
        strength, (width, height), guidance = case
        values = {"image": colours(width, height), "strength": strength}
        yield number + 1, {**values, "guidance_scale": guidance}


NAMES = [*PLAIN, "dpmpp_2m_karras", "euler_exponential", "unipc_beta"]


def at_least(model, name, **more):
    worst = []
    for seed, values in cases(name):
        size = values["image"].size
        if more.get("mask"):
            values["mask_image"] = mask_of(*size)
        decibels = psnr(model.mine(name, seed, **values), model.theirs(name, seed, **values))
        worst.append((decibels, size, values["strength"], values["guidance_scale"]))
    print(f"{name}: at least {min(worst)[0]:.1f} dB")
    assert min(worst)[0] >= LEAST, sorted(worst)[:4]


@pytest.mark.parametrize("name", NAMES)
def test_image_to_image(model, name):
    at_least(model, name)


@pytest.mark.parametrize("name", NAMES)
def test_inpainting_with_any_model(model, name):
    at_least(model, name, mask=True)


@pytest.mark.parametrize("name", NAMES)
def test_inpainting_with_a_model_made_for_it(inpainting_model, name):
    at_least(inpainting_model, name, mask=True)


def test_another_seed_or_picture_is_another_picture(model, inpainting_model):
    """So that a high figure above says something."""
    for one in (model, inpainting_model):
        values = {"image": colours(96, 64), "mask_image": mask_of(96, 64), "strength": 0.8}
        expected = one.theirs("ddim", 1, **values)
        assert psnr(one.mine("ddim", 2, **values), expected) < LEAST - 5
        values["image"] = colours(96, 64, seed=1)
        assert psnr(one.mine("ddim", 1, **values), expected) < LEAST - 5


@pytest.mark.parametrize("size", [(60, 41), (200, 90)])
def test_a_picture_of_any_size_is_scaled_as_diffusers_scales_it(model, size):
    picture = colours(*size) if min(size) >= 64 else colours(64, 64).resize(size)
    values = {"image": picture, "mask_image": mask_of(96, 64), "height": 64, "width": 96}
    decibels = psnr(
        model.mine("euler", 1, **values), model.theirs("euler", 1, **values, strength=1.0)
    )
    assert decibels >= LEAST


@pytest.mark.parametrize("padding", [0, 8, 32, 500])
@pytest.mark.parametrize("size", [(160, 112), (64, 208)])
def test_the_masked_part_at_full_resolution(model, inpainting_model, size, padding):
    blur = 3
    for one in (model, inpainting_model):
        values = {"image": colours(*size), "padding_mask_crop": padding, "strength": 0.7}
        shared = {**values, "height": 64, "width": 96}
        mask = mask_of(*size)
        mine = one.mine("euler", 3, **shared, mask_image=mask, mask_blur=blur)
        blurred = mask.filter(ImageFilter.GaussianBlur(blur))
        expected = one.theirs("euler", 3, **shared, mask_image=blurred)
        assert mine.shape == expected.shape == (size[1], size[0], 3)
        assert psnr(mine, expected) >= LEAST
