"""A run of one of our schedulers on random model outputs, as the parity tests compare it."""

from __future__ import annotations

import numpy as np

from triptych import schedulers
from triptych.denoise.noise import Noise

SD15 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
"""scheduler_config.json of Stable Diffusion v1.5."""

SD21 = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
"""scheduler_config.json of Stable Diffusion 2.1."""

PREDICTIONS = [
    (entry.name, prediction_type)
    for entry in schedulers.TABLE
    for prediction_type in ("epsilon", "v_prediction", "sample")
    if entry.implementation.OPTIONS["prediction_type"].is_allowed(prediction_type)
]
"""Every scheduler with every prediction_type that it serves."""

DEMO = {"beta_schedule": "linear", "prediction_type": "v_prediction"}


def model_outputs(calls, shape):
    """Random answers of a model, one a call, float32, the same with and without torch."""
    engine = np.random.RandomState(0)
    return [engine.standard_normal(shape).astype(np.float32) for _ in range(calls)]


def of_file(name, config):
    """The scheduler that diffusers makes of the file `config` for the class and options of `name`.

    The name alone would mean one without what else the file has, such as Karras sigmas.
    """
    entry = schedulers.entry(name)
    return schedulers.resolve(entry.diffusers, {**config, **entry.options})


def run(name, config, steps, start, seed, eta=None):
    """timesteps [calls], init_noise_sigma, model inputs [calls, ...], latents [1 + calls, ...].

    `start` are the first latents, of the noise of `seed`; the noise of the steps comes after it.
    """
    scheduler = schedulers.create(of_file(name, config), config, steps, eta=eta)
    noise = Noise(seed)
    noise.randn(start.shape)
    inputs, latents = [], [start]
    for i, output in enumerate(model_outputs(len(scheduler.timesteps), start.shape)):
        inputs.append(scheduler.scale_model_input(latents[-1], i))
        latents.append(scheduler.step(output, i, latents[-1], noise.randn))
    return scheduler.timesteps, scheduler.init_noise_sigma, np.array(inputs), np.array(latents)


def run_from_picture(name, config, steps, strength, clean, seed):
    """Model inputs [calls, ...] and latents [1 + calls, ...] of an image that starts from `clean`.

    As in inpainting, a half of it is put back after each step, with the noise of the next call.
    """
    scheduler = schedulers.create(name, config, steps, strength=strength)
    calls = len(scheduler.timesteps)
    stream = Noise(seed)
    noise = stream.randn(clean.shape)
    latents, inputs = [scheduler.add_noise(clean, noise, scheduler.begin)], []
    outputs = model_outputs(calls - scheduler.begin, clean.shape)
    for i, output in zip(range(scheduler.begin, calls), outputs):
        inputs.append(scheduler.scale_model_input(latents[-1], i))
        sample = scheduler.step(output, i, latents[-1], stream.randn)
        back = scheduler.add_noise(clean, noise, i + 1) if i + 1 < calls else clean
        latents.append(np.where(HALF, sample, back))
    return np.array(inputs), np.array(latents)


HALF = np.array([True, False])[:, None, None]
"""The channels that are drawn, of two that a picture has in tests of the schedulers."""


def relative_error(ours, theirs):
    """The largest, over the first axis, norm of the difference over norm."""
    assert ours.shape == theirs.shape
    ours, theirs = (array.reshape(len(array), -1).astype(np.float64) for array in (ours, theirs))
    difference = np.linalg.norm(ours - theirs, axis=1)
    return float((difference / np.linalg.norm(theirs, axis=1)).max())
