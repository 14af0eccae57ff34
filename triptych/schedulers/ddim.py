"""DDIM: Denoising Diffusion Implicit Models, Song, Meng and Ermon, 2020."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.alpha_space import AlphaSpace
from triptych.schedulers.config import flag, integer, one_of, real


class DDIM(AlphaSpace):
    """Equation 12 of the paper: x_0 and the noise are predicted, then mixed anew.

    The predicted noise is that of the unclipped x_0. eta is the part of the deviation of DDPM's
    posterior that new noise has (equation 16): 0 draws none.
    """

    OPTIONS = {
        **AlphaSpace.OPTIONS,
        "clip_sample": flag(True),
        "timestep_spacing": one_of("leading", "trailing", "linspace"),
        "steps_offset": integer(0, minimum=0),
        "set_alpha_to_one": flag(True),
        "eta": real(0.0, minimum=0, maximum=1),
    }

    def __init__(self, config, steps):
        timesteps = tables.training_timesteps(config, steps)
        gap = config["num_train_timesteps"] // steps
        prev_signal = tables.signal_at(timesteps - gap, config).astype(np.float64)[:, None]
        alpha, sigma = self._prepare(config, tables.signal_at(timesteps, config))
        x0 = tables.x0_weights(config["prediction_type"], alpha, sigma)
        noise = tables.noise_weights(x0, alpha, sigma)
        signal = np.maximum(alpha, 1e-15)[:, None] ** 2
        variance = (1 - prev_signal) / sigma[:, None] ** 2 * (1 - signal / prev_signal)
        new = config["eta"] * np.sqrt(np.maximum(variance, 0))
        prev = np.hstack([np.sqrt(prev_signal), np.sqrt(1 - prev_signal - new**2) * noise])

        self.timesteps = timesteps.astype(np.float32)
        self._prev = prev.astype(np.float32)
        self._new_noise = new.astype(np.float32)[:, 0] if config["eta"] else None
        self._unclipped = (prev[:, :1] * x0 + prev[:, 1:]).astype(np.float32)

    def step(self, model_output, i, sample, randn):
        if self._limit is None:
            prev = tables.weighted_sum(self._unclipped[i], (sample, model_output))
        else:
            x0 = self._predict_x0(model_output, i, sample)
            prev = tables.weighted_sum(self._prev[i], (x0, sample, model_output))
        if self._new_noise is not None:
            prev += self._new_noise[i] * randn(sample.shape)
        return prev
