"""What diffusers' schedulers give, step by step, for random model outputs."""

from __future__ import annotations

import contextlib
import inspect
import sys
import types
import warnings
from pathlib import Path
from unittest import mock

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from scheduler_run import HALF, model_outputs

from triptych import schedulers

ENTRIES = {entry.name: entry for entry in schedulers.TABLE}


PLAIN = [entry.name for entry in schedulers.TABLE if entry.schedule is None]
"""The names of the schedulers whose sigmas are of their timesteps, if the file does not differ."""


def made(name, config):
    """diffusers' scheduler for one of our names and a `scheduler_config.json`."""
    entry = ENTRIES[name]
    kind = getattr(diffusers, entry.diffusers)
    set_timesteps = kind.set_timesteps
    # Heun and DPM2 make tables of 1000 steps, which nobody uses, when they are made.
    with mock.patch.object(kind, "set_timesteps", lambda self, *_: set_timesteps(self, 2)):
        return kind.from_config(dict(config), **entry.options)


@contextlib.contextmanager
def quietly_made(name, config, steps):
    """`made`, with its timesteps, and without diffusers' warnings inside of the context."""
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = made(name, config)
        scheduler.set_timesteps(steps)
        yield scheduler


def drawing_by(generator, scheduler):
    """What the scheduler's step takes to draw noise by the generator, if it draws any."""
    takes = inspect.signature(scheduler.step).parameters
    return {"generator": generator} if "generator" in takes else {}


def trajectory(name, config, steps, shape, seed, eta=None):
    """What `scheduler_run.run` gives, by diffusers; start and noise are of one torch generator."""
    with quietly_made(name, config, steps) as scheduler:
        if hasattr(scheduler, "set_begin_index"):
            # Else it fails where Karras sigmas round the first two timesteps to the same one.
            scheduler.set_begin_index(0)
        generator = torch.Generator("cpu").manual_seed(seed)
        sample = torch.randn(shape, generator=generator)[None] * scheduler.init_noise_sigma
        drawing = drawing_by(generator, scheduler)
        if eta is not None:
            drawing["eta"] = eta
        inputs, latents = [], [sample[0].numpy()]
        outputs = model_outputs(len(scheduler.timesteps), shape)
        for timestep, output in zip(scheduler.timesteps, outputs):
            inputs.append(scheduler.scale_model_input(sample, timestep)[0].numpy())
            sample = scheduler.step(torch.from_numpy(output)[None], timestep, sample, **drawing)[0]
            latents.append(sample[0].numpy())
    timesteps = scheduler.timesteps.numpy().astype(np.float32)
    return timesteps, float(scheduler.init_noise_sigma), np.array(inputs), np.array(latents)


def trajectory_from_picture(name, config, steps, strength, clean, seed):
    """What `scheduler_run.run_from_picture` gives, by diffusers' schedulers and get_timesteps."""
    with quietly_made(name, config, steps) as scheduler:
        pipeline = types.SimpleNamespace(scheduler=scheduler)
        timesteps, _ = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, steps, strength, None)
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn(clean.shape, generator=generator)[None]
        picture, half = torch.from_numpy(clean)[None], torch.from_numpy(HALF)[None]
        sample = scheduler.add_noise(picture, noise, timesteps[:1])
        drawing = drawing_by(generator, scheduler)
        inputs, latents = [], [sample[0].numpy()]
        outputs = model_outputs(len(timesteps), clean.shape)
        for i, (timestep, output) in enumerate(zip(timesteps, outputs)):
            inputs.append(scheduler.scale_model_input(sample, timestep)[0].numpy())
            sample = scheduler.step(torch.from_numpy(output)[None], timestep, sample, **drawing)[0]
            back = picture
            if i + 1 < len(timesteps):
                back = scheduler.add_noise(picture, noise, timesteps[i + 1 : i + 2])
            sample = torch.where(half, sample, back)
            latents.append(sample[0].numpy())
    return np.array(inputs), np.array(latents)
