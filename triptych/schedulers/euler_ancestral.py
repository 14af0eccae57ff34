"""Euler ancestral: the sampler of DDPM (Ho, Jain and Abbeel, 2020) in terms of sigmas."""

from __future__ import annotations

import numpy as np

from triptych.schedulers.config import flag, one_of
from triptych.schedulers.sigma_space import OneCall, ancestral


class EulerAncestral(OneCall):
    """An Euler step that goes below the next sigma, then new noise up to it."""

    OPTIONS = {
        **OneCall.OPTIONS,
        "prediction_type": one_of("epsilon", "v_prediction"),
        "rescale_betas_zero_snr": flag(False),
    }

    def __init__(self, config, steps):
        super().__init__(config, steps)
        sigma_down, sigma_up = ancestral(self.sigmas)
        self._change = (sigma_down - self.sigmas[:-1]).astype(np.float32)
        self._sigma_up = sigma_up.astype(np.float32)

    def step(self, model_output, i, sample, randn):
        prev_sample = self._derivative(model_output, i, sample)
        prev_sample *= self._change[i]
        prev_sample += sample
        prev_sample += randn(sample.shape) * self._sigma_up[i]
        return prev_sample
