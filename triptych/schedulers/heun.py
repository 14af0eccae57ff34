"""Heun: algorithm 1 of Karras, Aittala, Aila and Laine, 2022, without its noise."""

from __future__ import annotations

import numpy as np

from triptych.schedulers.config import LATENT_NOISE_LEVELS, flag, real
from triptych.schedulers.spread import OPTIONS as SPREADS
from triptych.schedulers.two_calls import TwoCalls


class Heun(TwoCalls):
    """The mean of the derivatives at both ends of a step; an Euler step finds the second end."""

    OPTIONS = {
        **TwoCalls.OPTIONS,
        **LATENT_NOISE_LEVELS,
        **SPREADS,
        "clip_sample": flag(False),
        "clip_sample_range": real(1.0, minimum=0, maximum=1e6),
    }

    def __init__(self, config, steps):
        timesteps, sigmas = self._schedule(config, steps)
        self._limit = config["clip_sample_range"] if config["clip_sample"] else None
        following = timesteps[1:], sigmas[1:]
        self._tabulate_steps(config, (timesteps, sigmas), following, np.append(sigmas[1:], 0))

    def _second_slope(self, slope):
        slope += self._first_slope
        slope /= 2
        return slope
