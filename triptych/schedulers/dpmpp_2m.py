"""DPM-Solver++: Lu, Zhou, Bao, Chen, Li and Zhu, 2022, the multistep solvers for predicted x_0."""

from __future__ import annotations

import math

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import flag, one_of, real
from triptych.schedulers.multistep import Multistep


class DPMpp2M(Multistep):
    """DPM-Solver++(2M), algorithm 2 of the paper; also its orders 1, which is DDIM, and 3."""

    OPTIONS = {
        **Multistep.OPTIONS,
        "algorithm_type": one_of("dpmsolver++"),
        # As in diffusers, the values that only other classes know mean the default.
        "solver_type": one_of("midpoint", "heun", "bh1", "bh2", "logrho"),
        "euler_at_final": flag(False),
        "lambda_min_clipped": real(-math.inf, minimum=-math.inf, maximum=0),
        "use_lu_lambdas": one_of(False),
        "variance_type": one_of(None),
    }

    def __init__(self, config, steps):
        of_training = -np.log(tables.training_sigmas(config)[::-1])
        clipped = np.searchsorted(of_training, config["lambda_min_clipped"])
        cosine = config["beta_schedule"] == "squaredcos_cap_v2"
        last = config["num_train_timesteps"] - int(clipped)
        self._schedule(config, steps, last, np.trunc if cosine else np.round)
        steps = len(self.timesteps)
        heun = config["solver_type"] == "heun"
        self._table = [self._weights(i, self._order(i, config, steps), heun) for i in range(steps)]

    @staticmethod
    def _order(i, config, steps):
        """The order at step i: low at the start for want of a history, at the end to be stable."""
        stable = config["lower_order_final"] and steps < 15
        if i == steps - 1 and (
            stable or config["euler_at_final"] or config["final_sigmas_type"] == "zero"
        ):
            return 1
        return min(config["solver_order"], i + 1, 2 if stable and i == steps - 2 else 3)

    def _weights(self, i, order, heun):
        """Weights of the sample and of x_0 at steps i, i - 1, i - 2 in the sample of step i + 1.

        d1 stands for h times the derivative of x_0 by lambda, `change` for how d1 itself changes.
        """
        h, h0, h1 = (self.lambdas[k + 1] - self.lambdas[k] for k in (i, i - 1, i - 2))
        now, before, earlier = np.eye(3)
        phi1 = np.expm1(-h)
        x0 = -phi1 * now
        if order > 1 and h:
            d1 = (now - before) * h / h0
            phi2 = phi1 / h + 1
            if order == 2:
                x0 += (phi2 if heun else -0.5 * phi1) * d1
            else:
                change = d1 - (before - earlier) * h / h1
                x0 += phi2 * (d1 + h0 / (h0 + h1) * change)
                x0 -= ((phi1 + h) / h**2 - 0.5) * (h / (h0 + h1)) * change
        return self._row(i, x0)

    def step(self, model_output, i, sample, randn):
        self._history = [self._predict_x0(model_output, i, sample), *self._history[:2]]
        return tables.weighted_sum(self._table[i], (sample, *self._history))
