"""guidance_start and guidance_stop against diffusers' guiders, with the weights served."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.guiders import ClassifierFreeGuidance
from diffusers_reference import made
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "full"))

from random_models import louder, write_model

from triptych.pipeline import Pipeline
from triptych_export.cli import main
from triptych_export.picture import psnr
from triptych_export.rebuild import pipeline

CHECKOUT = Path(__file__).parents[2]
REPOSITORY = Path(os.environ.get("TRIPTYCH_TEST_REPOSITORY", CHECKOUT / "model_repository"))
LEAST = 40.0
SHORT = {"prompt": "a red circle left of a green star", "negative_prompt": "blue"}
SMALL = {**SHORT, "height": 128, "width": 128, "guidance_scale": 5.0, "seed": 3}
STEPS = 6
WINDOWS = ((0.0, 0.5), (0.2, 0.7))


def quietly(made):
    """The pipeline, without its bars, fit to encode prompts."""
    diffusers.logging.set_verbosity_error()
    made.set_progress_bar_config(disable=True)
    # diffusers 0.42 looks for the encoder where transformers had it before 5.6.
    object.__setattr__(made.text_encoder, "text_model", made.text_encoder)
    return made


@pytest.fixture(scope="module")
def served():
    """The demo model, as we and as diffusers run it."""
    return Pipeline(REPOSITORY), quietly(pipeline(REPOSITORY))


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    """A model with an encoder, of random weights, as we and as diffusers run it."""
    folder = tmp_path_factory.mktemp("random")
    source = louder(write_model(folder / "source", in_channels=4))
    assert main([str(source), "--output", str(folder / "served")]) == 0
    none = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
    theirs = StableDiffusionImg2ImgPipeline.from_pretrained(
        source, **none, requires_safety_checker=False
    )
    return Pipeline(folder / "served"), quietly(theirs)


@torch.no_grad()
def guided(theirs, name, window, request, picture=None, strength=None):
    """What diffusers' guider makes, its state set as the modular pipelines do, by whole steps."""
    scheduler = made(name, theirs.scheduler.config)
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator("cpu").manual_seed(request["seed"])
    prompts = (request["prompt"], "cpu", 1, True, request["negative_prompt"])
    embeds = theirs.encode_prompt(*prompts)
    shape = (1, 4, request["height"] // 8, request["width"] // 8)
    timesteps, steps = scheduler.timesteps, STEPS
    if picture is None:
        latents = torch.randn(shape, generator=generator) * scheduler.init_noise_sigma
    else:
        theirs.scheduler = scheduler
        timesteps, steps = theirs.get_timesteps(STEPS, strength, "cpu")
        sample = theirs.image_processor.preprocess(picture)
        clean = theirs.vae.encode(sample).latent_dist.sample(generator)
        noise = torch.randn(shape, generator=generator)
        scaled = clean * theirs.vae.config.scaling_factor
        latents = scheduler.add_noise(scaled, noise, timesteps[:1])
    guider = ClassifierFreeGuidance(request["guidance_scale"], start=window[0], stop=window[1])
    rows = 0
    for call, timestep in enumerate(timesteps):
        guider.set_state(call // scheduler.order, steps, timestep)
        batches = guider.prepare_inputs({"encoder_hidden_states": embeds})
        rows += len(batches)
        for batch in batches:
            inputs = scheduler.scale_model_input(latents, timestep)
            batch.noise_pred = theirs.unet(inputs, timestep, batch.encoder_hidden_states)[0]
        latents = scheduler.step(guider(batches).pred, timestep, latents)[0]
    assert rows < 2 * len(timesteps)
    decoded = theirs.vae.decode(latents / theirs.vae.config.scaling_factor)[0]
    return np.asarray(theirs.image_processor.postprocess(decoded)[0])


def asked(request, name, window):
    start, stop = window
    more = {"guidance_start": start, "guidance_stop": stop, "num_inference_steps": STEPS}
    return {**request, "scheduler": name, **more}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["dpmpp_2m", "heun"])
def test_a_picture_is_that_of_diffusers_guider(served, name, window):
    ours, theirs = served
    expected = guided(theirs, name, window, SMALL)
    assert psnr(ours.pixels(json.dumps(asked(SMALL, name, window))), expected) >= LEAST
    everywhere = ours.pixels(json.dumps(asked(SMALL, name, (0, 1))))
    assert psnr(everywhere, expected) < LEAST


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["dpmpp_2m", "heun"])
def test_from_a_picture_it_is_a_part_of_the_steps_that_are_made(random, name, window):
    ours, theirs = random
    patches = np.random.RandomState(0).randint(0, 256, (4, 6, 3), np.uint8)
    picture = Image.fromarray(patches).resize((96, 64), Image.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG")
    request = {"prompt": "red blue", "negative_prompt": "green", "guidance_scale": 7.5, "seed": 5}
    sized = {**request, "height": 64, "width": 96}
    expected = guided(theirs, name, window, sized, picture, 0.7)
    brought = {"image": base64.b64encode(file.getvalue()).decode(), "strength": 0.7}
    mine = ours.pixels(json.dumps({**asked(request, name, window), **brought}))
    assert psnr(mine, expected) >= LEAST
    everywhere = ours.pixels(json.dumps({**asked(request, name, (0, 1)), **brought}))
    assert psnr(everywhere, expected) < LEAST


def test_the_pipeline_with_guidance_ended_by_its_callback(served):
    ours, theirs = served
    theirs.scheduler = made("dpmpp_2m", theirs.scheduler.config)

    def end(pipeline, step, _, tensors):
        if step + 1 == STEPS // 2:
            pipeline._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
        return tensors

    generator = torch.Generator("cpu").manual_seed(SMALL["seed"])
    own = {name: value for name, value in SMALL.items() if name != "seed"}
    expected = theirs(
        **own,
        generator=generator,
        num_inference_steps=STEPS,
        callback_on_step_end=end,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    ).images[0]
    mine = ours.pixels(json.dumps(asked(SMALL, "dpmpp_2m", (0, 0.5))))
    assert psnr(mine, np.asarray(expected)) >= LEAST
