"""Euler ancestral: the sampler of DDPM (Ho, Jain and Abbeel, 2020) in terms of sigmas."""

from __future__ import annotations

import numpy as np

from triptych.schedulers.config import flag, one_of
from triptych.schedulers.sigma_space import SigmaSpace


class EulerAncestral(SigmaSpace):
    """An Euler step that goes below the next sigma, then new noise up to it.

    The parts are those of the posterior of a forward step (equation 7 of Ho et al., 2020):
    sigma_up**2 = next**2 * (sigma**2 - next**2) / sigma**2, sigma_down**2 = next**2 - sigma_up**2.
    """

    OPTIONS = {
        **SigmaSpace.OPTIONS,
        "prediction_type": one_of("epsilon", "v_prediction"),
        "rescale_betas_zero_snr": flag(False),
    }

    def __init__(self, config, steps):
        super().__init__(config, steps)
        sigmas, following = self.sigmas[:-1].astype(np.float64), self.sigmas[1:].astype(np.float64)
        sigma_down = following**2 / sigmas
        sigma_up = following * np.sqrt(1 - (following / sigmas) ** 2)
        self._change = (sigma_down - sigmas).astype(np.float32)
        self._sigma_up = sigma_up.astype(np.float32)

    def step(self, model_output, i, sample, randn):
        prev_sample = self._derivative(model_output, i, sample)
        prev_sample *= self._change[i]
        prev_sample += sample
        prev_sample += randn(sample.shape) * self._sigma_up[i]
        return prev_sample
