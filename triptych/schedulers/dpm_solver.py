"""What the solvers of DPM-Solver++ (Lu, Zhou, Bao, Chen, Li and Zhu, 2022) share."""

from __future__ import annotations

import math

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import one_of, real
from triptych.schedulers.multistep import Multistep


class DPMSolver(Multistep):
    """Solvers for predicted x_0, of the ODE or, with sde-dpmsolver++, of the SDE.

    The SDE's solution has 2 * h where the ODE's has h, and new noise.
    """

    OPTIONS = {
        **Multistep.OPTIONS,
        # As in diffusers, the values that only other classes know mean the default.
        "algorithm_type": one_of("dpmsolver++", "sde-dpmsolver++", "deis"),
        "solver_type": one_of("midpoint", "heun", "bh1", "bh2", "logrho"),
        "lambda_min_clipped": real(-math.inf, minimum=-math.inf, maximum=0),
        "variance_type": one_of(
            None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"
        ),
    }

    def _prepare(self, config, steps, karras_timestep=np.round):
        self._is_sde = config["algorithm_type"] == "sde-dpmsolver++"
        of_training = -np.log(tables.training_sigmas(config)[::-1])
        clipped = np.searchsorted(of_training, config["lambda_min_clipped"])
        last = config["num_train_timesteps"] - int(clipped)
        self._schedule(config, steps, last, karras_timestep)

    def _phis(self, h):
        """Factors of x_0 and of its two derivatives by lambda, over a step of length h."""
        # Of the SDE's third one might expect -0.5; +0.5 is what diffusers has.
        length, constant = (2 * h, 0.5) if self._is_sde else (h, -0.5)
        phi1 = np.expm1(-length)
        return phi1, phi1 / length + 1, (phi1 + length) / length**2 + constant

    def _first_order(self, start, end):
        """The row of a step with the newest x_0 alone, which is DDIM's."""
        h = self.lambdas[end] - self.lambdas[start]
        return self._row(start, end, [-np.expm1(-2 * h if self._is_sde else -h)])

    def _row(self, start, end, x0):
        """As Multistep's; for the SDE the weight of the noise stands after that of the sample."""
        row = super()._row(start, end, np.asarray(x0))
        if not self._is_sde:
            return row
        h = self.lambdas[end] - self.lambdas[start]
        of_noise = self.alphas[end] * self.sigmas[end] * np.sqrt(-np.expm1(-2 * h))
        row[0] *= np.exp(-h)
        return np.insert(row, 1, np.float32(of_noise))

    def _apply(self, row, sample, randn):
        """The sample that a row makes of `sample`, new noise and the history."""
        noise = [randn(sample.shape)] if self._is_sde else []
        return tables.weighted_sum(row, (sample, *noise, *self._history))
