"""LMS: the linear multistep method of Adams and Bashforth on the ODE of Karras et al. (2022)."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.sigma_space import OneCall
from triptych.schedulers.spread import OPTIONS as SPREADS

_ORDER = 4
_GAUSS_POINTS = np.array([-1, 1]) / np.sqrt(3)


class LMS(OneCall):
    """The derivatives of the last four steps, as a polynomial of sigma, integrated to the next one.

    For steps of unequal length, which is what tells it from the slopes of PNDM; as in k-diffusion
    by Crowson (2022).
    """

    OPTIONS = {**OneCall.OPTIONS, **SPREADS}

    def __init__(self, config, steps):
        super().__init__(config, steps)
        tables.require_distinct(self.sigmas, config, steps)
        self._table = [self._coefficients(i) for i in range(steps)]
        self._history = []

    def _coefficients(self, i):
        """Weights of the derivatives at steps i, i - 1, ... in the change from step i to i + 1.

        Each is the integral of a Lagrange polynomial of degree at most 3, which the two points of
        Gauss's quadrature give without error.
        """
        sigmas = self.sigmas.astype(np.float64)
        known = sigmas[i::-1][:_ORDER]
        half = (sigmas[i + 1] - sigmas[i]) / 2
        points = sigmas[i] + half * (1 + _GAUSS_POINTS)
        coefficients = []
        for k, sigma in enumerate(known):
            others = np.delete(known, k)
            lagrange = np.prod((points[:, None] - others) / (sigma - others), axis=1)
            coefficients.append(half * lagrange.sum())
        return np.array(coefficients, np.float32)

    def step(self, model_output, i, sample, randn):
        derivative = self._derivative(model_output, i, sample)
        self._history = [derivative, *self._history[: _ORDER - 1]]
        prev_sample = tables.weighted_sum(self._table[i], self._history)
        prev_sample += sample
        return prev_sample
