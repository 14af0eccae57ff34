"""LCM: Latent Consistency Models, Luo, Tan, Huang, Li and Zhao, 2023."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.alpha_space import AlphaSpace
from triptych.schedulers.config import LATENT_NOISE_LEVELS, integer, one_of, real

_SIGMA_DATA = 0.5


class LCM(AlphaSpace):
    """Multistep consistency sampling (algorithm 3): predict x_0, add noise for the next timestep.

    Its timesteps are some of the `original_inference_steps` that the model was distilled on. c_skip
    and c_out are those of consistency models (Song et al., 2023), of timestep_scaling * timestep.
    The last step adds noise of weight 0.
    """

    OPTIONS = {
        **AlphaSpace.OPTIONS,
        **LATENT_NOISE_LEVELS,
        "beta_schedule": one_of("scaled_linear", "linear", "squaredcos_cap_v2"),
        "original_inference_steps": integer(50, minimum=1),
        "timestep_scaling": real(10.0, minimum=0, maximum=1e6),
    }

    def __init__(self, config, steps):
        timesteps = tables.distilled_timesteps(config, steps, "lcm")
        signal = tables.alphas_cumprod(config)[timesteps]
        self._prepare(config, signal)

        scaled = timesteps * config["timestep_scaling"]
        c_skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        c_out = scaled / np.sqrt(scaled**2 + _SIGMA_DATA**2)
        following = np.append(signal[1:], 1.0)
        alpha, sigma = np.sqrt(following), np.sqrt(1 - following)
        self.timesteps = timesteps.astype(np.float32)
        self._prev = np.stack([alpha * c_out, alpha * c_skip, sigma], axis=1).astype(np.float32)

    def step(self, model_output, i, sample, randn):
        x0 = self._predict_x0(model_output, i, sample)
        return tables.weighted_sum(self._prev[i], (x0, sample, randn(sample.shape)))
