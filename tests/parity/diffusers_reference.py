"""What diffusers' schedulers give, step by step, for random model outputs."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import diffusers
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from scheduler_run import model_outputs

CLASSES = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "lms": "LMSDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_karras": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}


def trajectory(name, config, steps, shape, seed):
    """What `scheduler_run.run` gives, by diffusers; start and noise are of one torch generator."""
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extra = {"use_karras_sigmas": True} if name == "dpmpp_2m_karras" else {}
        scheduler = getattr(diffusers, CLASSES[name]).from_config(dict(config), **extra)
        scheduler.set_timesteps(steps)
        if hasattr(scheduler, "set_begin_index"):
            # Else it fails where Karras sigmas round the first two timesteps to the same one.
            scheduler.set_begin_index(0)
        generator = torch.Generator("cpu").manual_seed(seed)
        sample = torch.randn(shape, generator=generator)[None] * scheduler.init_noise_sigma
        drawing = {"generator": generator} if name in ("euler_ancestral", "lcm") else {}
        inputs, latents = [], [sample[0].numpy()]
        outputs = model_outputs(len(scheduler.timesteps), shape)
        for timestep, output in zip(scheduler.timesteps, outputs):
            inputs.append(scheduler.scale_model_input(sample, timestep)[0].numpy())
            sample = scheduler.step(torch.from_numpy(output)[None], timestep, sample, **drawing)[0]
            latents.append(sample[0].numpy())
    timesteps = scheduler.timesteps.numpy().astype(np.float32)
    return timesteps, float(scheduler.init_noise_sigma), np.array(inputs), np.array(latents)
