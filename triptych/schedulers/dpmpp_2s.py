"""DPM-Solver++(2S): algorithm 1 of Lu, Zhou, Bao, Chen, Li and Zhu, 2022."""

from __future__ import annotations

import numpy as np

from triptych.schedulers.config import flag, without
from triptych.schedulers.dpm_solver import DPMSolver


class DPMpp2S(DPMSolver):
    """The single step solvers: blocks of as many steps as the order, 2 if not told otherwise.

    Each step of a block starts anew from the block's first sample, with the x_0 of all its calls.
    """

    OPTIONS = {
        **without(DPMSolver.OPTIONS, "timestep_spacing", "steps_offset", "rescale_betas_zero_snr"),
        "lower_order_final": flag(False),
    }

    def __init__(self, config, steps):
        self._prepare({**config, "timestep_spacing": "linspace", "steps_offset": 0}, steps)
        block, to_zero = config["solver_order"], config["final_sigmas_type"] == "zero"
        # A start within a block makes a block of what is left of it.
        known = [max(1, i - config["begin"] + 1) for i in range(steps)]
        self._orders = [min(1 + i % block, known[i]) for i in range(steps)]
        if to_zero or (config["lower_order_final"] and steps % block == 0):
            self._orders[-1] = 1
        heun = config["solver_type"] == "heun"
        self._table = [self._weights(i, order, heun) for i, order in enumerate(self._orders)]

    def _weights(self, i, order, heun):
        """Weights of the block's first sample and of x_0 at steps i, i - 1, ... in that of i + 1.

        d1 and d2 stand for the first two derivatives of x_0 by lambda, times h and h**2.
        """
        start = i + 1 - order
        if order == 1:
            return self._first_order(start, i + 1)
        h = self.lambdas[i + 1] - self.lambdas[start]
        phi1, phi2, phi3 = self._phis(h)
        *later, first = np.eye(order)
        x0 = -phi1 * first
        slopes = [
            (one - first) * h / (self.lambdas[k] - self.lambdas[start])
            for one, k in zip(later, (i, i - 1))
        ]
        if order == 2:
            x0 += (phi2 if heun else -0.5 * phi1) * slopes[0]
        elif not heun:
            x0 += phi2 * slopes[0]
        else:
            far, near = ((self.lambdas[k] - self.lambdas[start]) / h for k in (i, i - 1))
            d2 = 2 * (slopes[0] - slopes[1]) / (far - near)
            d1 = slopes[0] - far / 2 * d2
            x0 += phi2 * d1 - phi3 * d2
        return self._row(start, i + 1, x0)

    def step(self, model_output, i, sample, randn):
        self._history = [self._predict_x0(model_output, i, sample), *self._history[:2]]
        if self._orders[i] == 1:
            self._sample = sample
        return self._apply(self._table[i], self._sample, randn)
