"""Euler: algorithm 1 of Karras, Aittala, Aila and Laine, 2022, without its correction."""

from __future__ import annotations

import numpy as np

from triptych.schedulers.config import flag, one_of
from triptych.schedulers.sigma_space import OneCall
from triptych.schedulers.spread import OPTIONS as SPREADS


class Euler(OneCall):
    """A straight line along the derivative to the next sigma."""

    OPTIONS = {
        **OneCall.OPTIONS,
        **SPREADS,
        "rescale_betas_zero_snr": flag(False),
        "sigma_min": one_of(None),
        "sigma_max": one_of(None),
        "interpolation_type": one_of("linear"),
        "timestep_type": one_of("discrete"),
        "final_sigmas_type": one_of("zero", "sigma_min"),
    }

    def __init__(self, config, steps):
        super().__init__(config, steps)
        self._change = np.diff(self.sigmas)

    def step(self, model_output, i, sample, randn):
        prev_sample = self._derivative(model_output, i, sample)
        prev_sample *= self._change[i]
        prev_sample += sample
        return prev_sample
