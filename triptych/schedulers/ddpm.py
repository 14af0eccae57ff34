"""DDPM: Denoising Diffusion Probabilistic Models, Ho, Jain and Abbeel, 2020."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.alpha_space import AlphaSpace
from triptych.schedulers.config import flag, integer, one_of


class DDPM(AlphaSpace):
    """Ancestral sampling (algorithm 2): the posterior of equation 7 for the predicted x_0.

    `fixed_small` is the posterior's own variance, `fixed_large` that of the forward step, the two
    choices of section 3.2. As in diffusers, null and `fixed_small_log` mean `fixed_small` too.
    """

    OPTIONS = {
        **AlphaSpace.OPTIONS,
        "clip_sample": flag(True),
        "timestep_spacing": one_of("leading", "trailing", "linspace"),
        "steps_offset": integer(0, minimum=0),
        "variance_type": one_of("fixed_small", None, "fixed_small_log", "fixed_large"),
    }

    def __init__(self, config, steps):
        timesteps = tables.training_timesteps(config, steps)
        signal = tables.alphas_cumprod(config)[timesteps]
        self._prepare(config, signal)
        prev_signal = np.append(signal[1:], np.float32(1))
        kept = signal / prev_signal
        of_x0 = np.sqrt(prev_signal) * (1 - kept) / (1 - signal)
        of_sample = np.sqrt(kept) * (1 - prev_signal) / (1 - signal)
        variance = 1 - kept
        if config["variance_type"] != "fixed_large":
            variance = variance * (1 - prev_signal) / (1 - signal)
        of_noise = np.where(timesteps > 0, np.sqrt(variance), 0)
        self.timesteps = timesteps.astype(np.float32)
        self._prev = np.stack([of_x0, of_sample, of_noise], axis=1).astype(np.float32)

    def step(self, model_output, i, sample, randn):
        x0 = self._predict_x0(model_output, i, sample)
        return tables.weighted_sum(self._prev[i], (x0, sample, randn(sample.shape)))
