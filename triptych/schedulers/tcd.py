"""TCD: Trajectory Consistency Distillation, Zheng, Hu, Fan, Wang, Ding, Tao and Cham, 2024."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.alpha_space import AlphaSpace
from triptych.schedulers.config import LATENT_NOISE_LEVELS, integer, one_of, real


class TCD(AlphaSpace):
    """Strategic stochastic sampling: below the next timestep, then noise up to it.

    eta, the paper's gamma, is the part of the way that noise goes up again; 0.3 is the default of
    diffusers' class. The last step adds no noise.
    """

    OPTIONS = {
        **AlphaSpace.OPTIONS,
        **LATENT_NOISE_LEVELS,
        "beta_schedule": one_of("scaled_linear", "linear", "squaredcos_cap_v2"),
        "original_inference_steps": integer(50, minimum=1),
        "eta": real(0.3, minimum=0, maximum=1),
    }

    def __init__(self, config, steps):
        timesteps = tables.distilled_timesteps(config, steps, "tcd")
        following = np.append(timesteps[1:], 0)
        below = np.floor(np.float32(1 - config["eta"]) * following.astype(np.float32)).astype(int)
        levels = tables.alphas_cumprod(config)
        signal, signal_below = levels[timesteps], levels[below][:, None]
        # As in diffusers, clip_sample says nothing here.
        alpha, sigma = self._prepare({**config, "clip_sample": False}, signal)
        noise = tables.noise_weights(self._x0, alpha, sigma)
        prev = np.sqrt(signal_below) * self._x0 + np.sqrt(1 - signal_below) * noise
        up = levels[following][:, None] / signal_below
        self.timesteps = timesteps.astype(np.float32)
        self._prev = np.hstack([np.sqrt(up) * prev, np.sqrt(1 - up)]).astype(np.float32)

    def step(self, model_output, i, sample, randn):
        return tables.weighted_sum(self._prev[i], (sample, model_output, randn(sample.shape)))
