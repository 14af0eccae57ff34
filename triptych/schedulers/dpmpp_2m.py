"""DPM-Solver++(2M): algorithm 2 of Lu, Zhou, Bao, Chen, Li and Zhu, 2022."""

from __future__ import annotations

import numpy as np

from triptych.schedulers.config import flag, one_of
from triptych.schedulers.dpm_solver import DPMSolver
from triptych.schedulers.multistep import multistep_order


class DPMpp2M(DPMSolver):
    """The multistep solvers, order 2 if not told otherwise; order 1 is DDIM."""

    OPTIONS = {
        **DPMSolver.OPTIONS,
        "euler_at_final": flag(False),
        "use_lu_lambdas": one_of(False),
    }

    def __init__(self, config, steps):
        cosine = config["beta_schedule"] == "squaredcos_cap_v2"
        self._prepare(config, steps, np.trunc if cosine else np.round)
        heun = config["solver_type"] == "heun"
        steps = len(self.timesteps)
        orders = [multistep_order(i, config, steps) for i in range(steps)]
        self._table = [self._weights(i, order, heun) for i, order in enumerate(orders)]

    def _weights(self, i, order, heun):
        """Weights of the sample and of x_0 at steps i, i - 1, i - 2 in the sample of step i + 1.

        d1 stands for h times the derivative of x_0 by lambda, `change` for how d1 itself changes.
        """
        h, h0, h1 = (self.lambdas[k + 1] - self.lambdas[k] for k in (i, i - 1, i - 2))
        if order == 1 or h == 0:
            return self._first_order(i, i + 1)
        phi1, phi2, phi3 = self._phis(h)
        now, before, earlier = np.eye(3)
        d1 = (now - before) * h / h0
        x0 = -phi1 * now
        if order == 2:
            x0 += (phi2 if heun else -0.5 * phi1) * d1
        else:
            change = d1 - (before - earlier) * h / h1
            x0 += phi2 * (d1 + h0 / (h0 + h1) * change)
            x0 -= phi3 * (h / (h0 + h1)) * change
        return self._row(i, i + 1, x0)

    def step(self, model_output, i, sample, randn):
        self._history = [self._predict_x0(model_output, i, sample), *self._history[:2]]
        return self._apply(self._table[i], sample, randn)
