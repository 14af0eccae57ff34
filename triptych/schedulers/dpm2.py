"""DPM2: the second order solver of DPM-Solver, Lu, Zhou, Bao, Chen, Li and Zhu, 2022."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import LATENT_NOISE_LEVELS, one_of
from triptych.schedulers.sigma_space import ancestral
from triptych.schedulers.spread import OPTIONS as SPREADS
from triptych.schedulers.spread import timesteps_of
from triptych.schedulers.two_calls import TwoCalls


class DPM2(TwoCalls):
    """The derivative in the middle of a step, in log sigma, leads from its start to its end.

    As in k-diffusion by Crowson (2022).
    """

    OPTIONS = {
        **TwoCalls.OPTIONS,
        **LATENT_NOISE_LEVELS,
        **SPREADS,
        "prediction_type": one_of("epsilon", "v_prediction"),
    }

    def __init__(self, config, steps):
        timesteps, sigmas = self._schedule(config, steps)
        if config["use_karras_sigmas"]:
            timesteps = timesteps.round()
        end = self._ends(sigmas)
        middle = np.sqrt(sigmas[:-1] * end[:-1])
        middle_timesteps = timesteps_of(middle, tables.training_sigmas(config))
        self._tabulate_steps(config, (timesteps, sigmas), (middle_timesteps, middle), end)

    def _ends(self, sigmas):
        """The sigmas that the steps, which start at `sigmas`, lead to; the last is 0."""
        return np.append(sigmas[1:], 0)


class DPM2Ancestral(DPM2):
    """A step that goes below the next sigma, then new noise up to it, as Euler ancestral's.

    The middle of such a step is the next sigma itself.
    """

    def _ends(self, sigmas):
        down, up = ancestral(np.append(sigmas, 0))
        self._sigma_up = up.astype(np.float32)
        return down

    def step(self, model_output, i, sample, randn):
        prev_sample = super().step(model_output, i, sample, randn)
        if i % 2:
            prev_sample += randn(sample.shape) * self._sigma_up[i // 2]
        return prev_sample
