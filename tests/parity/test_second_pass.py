"""Second passes from latents against diffusers' two pipelines, with torch's interpolation between.

The weights are random, and go through the export and the whole of `triptych.pipeline`.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers_reference import PLAIN, made
from test_from_pictures import LEAST, PROMPT, STEPS, Both

from triptych.second_pass import INTERPOLATIONS
from triptych_export.picture import psnr

SIZE = {"height": 64, "width": 96}
SECOND = {"strength": 0.75, "num_inference_steps": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    diffusers.logging.set_verbosity_error()
    both = Both(tmp_path_factory.mktemp("four"), 4)
    both.text2img = StableDiffusionPipeline(
        **both.inpaint.components, requires_safety_checker=False
    )
    both.text2img.set_progress_bar_config(disable=True)
    return both


def theirs(model, name, seed, size, interpolation, guidance):
    """The picture of diffusers: its image to image takes latents as `image`."""
    shared = {"guidance_scale": guidance, "eta": 0.3 if name == "tcd" else 0.0}
    passes = []
    for pipeline, values in (
        (model.text2img, {**SIZE, "num_inference_steps": STEPS, "output_type": "latent"}),
        (model.img2img, SECOND),
    ):
        pipeline.scheduler = made(name, model.config)
        if passes:
            target = [side // 8 for side in size]
            scaled = torch.nn.functional.interpolate(passes[-1], target, mode=interpolation)
            values = {**values, "image": scaled}
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad():
            passes.append(pipeline(PROMPT, generator=generator, **values, **shared).images)
    return np.asarray(passes[-1][0])


def mine(model, name, seed, size, interpolation, guidance):
    second = {**SECOND, "height": size[0], "width": size[1], "interpolation": interpolation}
    return model.mine(name, seed, **SIZE, guidance_scale=guidance, second_pass=second)


@pytest.mark.parametrize("name", [*PLAIN, "dpmpp_2m_karras"])
def test_every_scheduler(model, name):
    case = (name, 3, (128, 192), "bilinear", 7.5)
    expected = theirs(model, *case)
    assert expected.shape == (128, 192, 3)
    decibels = psnr(mine(model, *case), expected)
    print(f"{name}: {decibels:.1f} dB")
    assert decibels >= LEAST


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("size", "guidance"), [((128, 192), 1.0), ((96, 144), 7.5)])
def test_every_interpolation(model, interpolation, size, guidance):
    case = ("euler", 5, size, interpolation, guidance)
    decibels = psnr(mine(model, *case), theirs(model, *case))
    print(f"{interpolation}: {decibels:.1f} dB")
    assert decibels >= LEAST


def test_another_interpolation_is_another_picture(model):
    """So that a high figure above says something."""
    expected = theirs(model, "euler", 5, (96, 144), "bilinear", 7.5)
    for other in ("bicubic", "nearest"):
        assert psnr(mine(model, "euler", 5, (96, 144), other, 7.5), expected) < LEAST - 5
