"""cache_interval against the package of DeepCache's authors, with the weights served."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers_reference import made
from PIL import Image
from test_guidance import REPOSITORY, quietly

from triptych.pipeline import Pipeline
from triptych_export.picture import psnr
from triptych_export.rebuild import pipeline

LEAST = 40.0
REQUEST = {"prompt": "a red circle left of a green star", "negative_prompt": "blue"}
SMALL = {**REQUEST, "height": 128, "width": 128, "guidance_scale": 5.0, "seed": 3}
STEPS = 9


@pytest.fixture(scope="module")
def ours():
    return Pipeline(REPOSITORY)


@pytest.fixture(scope="module")
def theirs():
    return quietly(pipeline(REPOSITORY))


def drawn(theirs, interval, name, request, **more):
    """The picture of diffusers' pipeline with the package's helper around its UNet."""
    theirs.scheduler = made(name, theirs.scheduler.config)
    helper = DeepCacheSDHelper(pipe=theirs)
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    try:
        asked = {key: value for key, value in request.items() if key != "seed"}
        generator = torch.Generator("cpu").manual_seed(request["seed"])
        return np.asarray(theirs(**asked, generator=generator, **more).images[0])
    finally:
        helper.disable()


@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("name", ["ddim", "pndm", "dpm2", "euler_ancestral"])
def test_a_picture_is_that_of_the_package(ours, theirs, name, interval):
    expected = drawn(theirs, interval, name, SMALL, num_inference_steps=STEPS)
    asked = {**SMALL, "scheduler": name, "num_inference_steps": STEPS}
    mine = ours.pixels(json.dumps({**asked, "cache_interval": interval}))
    assert psnr(mine, expected) >= LEAST
    assert psnr(ours.pixels(json.dumps(asked)), expected) < LEAST


@pytest.mark.parametrize("interval", [2, 3])
def test_without_guidance(ours, theirs, interval):
    alone = {**SMALL, "guidance_scale": 1.0}
    del alone["negative_prompt"]
    expected = drawn(theirs, interval, "ddim", alone, num_inference_steps=STEPS)
    asked = {**alone, "scheduler": "ddim", "num_inference_steps": STEPS}
    mine = ours.pixels(json.dumps({**asked, "cache_interval": interval}))
    assert psnr(mine, expected) >= LEAST


@pytest.mark.parametrize("name", ["ddim", "pndm"])
@pytest.mark.parametrize("interval", [2, 3])
def test_from_a_picture_it_counts_from_the_first_step_that_is_made(ours, theirs, name, interval):
    patches = np.random.RandomState(0).randint(0, 256, (4, 4, 3), np.uint8)
    picture = Image.fromarray(patches).resize((128, 128), Image.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG")
    pictures = StableDiffusionImg2ImgPipeline(**theirs.components, requires_safety_checker=False)
    pictures.set_progress_bar_config(disable=True)
    sized = {key: value for key, value in SMALL.items() if key not in ("height", "width")}
    more = {"image": picture, "strength": 0.7, "num_inference_steps": STEPS}
    expected = drawn(pictures, interval, name, sized, **more)
    brought = {"image": base64.b64encode(file.getvalue()).decode(), "strength": 0.7}
    asked = {**SMALL, **brought, "scheduler": name, "num_inference_steps": STEPS}
    mine = ours.pixels(json.dumps({**asked, "cache_interval": interval}))
    assert psnr(mine, expected) >= LEAST
    assert psnr(ours.pixels(json.dumps(asked)), expected) < LEAST
