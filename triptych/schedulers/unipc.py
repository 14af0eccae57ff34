"""UniPC: A Unified Predictor-Corrector Framework, Zhao, Bai, Rao, Zhou and Lu, 2023."""

from __future__ import annotations

import numpy as np

from triptych.errors import InvalidRequest
from triptych.schedulers import tables
from triptych.schedulers.config import Option, one_of
from triptych.schedulers.multistep import Multistep


class UniPC(Multistep):
    """UniPC for predicted x_0: each step first corrects the sample it got, then predicts the next.

    The corrector (UniC) redoes the step before with the x_0 that the model now gives for its end;
    no call is spent on it. bh1 and bh2 are the two choices of B(h) in the paper.
    """

    OPTIONS = {
        **Multistep.OPTIONS,
        # As in diffusers, the values that only other classes know mean the default.
        "solver_type": one_of("bh2", "bh1", "midpoint", "heun", "logrho"),
        "predict_x0": one_of(True),
        "disable_corrector": Option([], lambda value: isinstance(value, (list, tuple)), "a list"),
        "solver_p": one_of(None),
        "sigma_min": one_of(None),
        "sigma_max": one_of(None),
        "shift_terminal": one_of(None),
    }

    def __init__(self, config, steps):
        self._schedule(config, steps)
        self._bh1 = config["solver_type"] == "bh1"
        begin = config["begin"]
        orders = [min(config["solver_order"], max(1, i - begin + 1)) for i in range(steps)]
        if config["lower_order_final"]:
            orders = [min(order, steps - i) for i, order in enumerate(orders)]
        elif orders[-1] > 1 and config["final_sigmas_type"] == "zero":
            raise InvalidRequest(
                "lower_order_final", False, "true, for scheduler unipc with final_sigmas_type zero"
            )
        self._predictor = [self._weights(i, orders[i], corrector=False) for i in range(steps)]
        self._corrector = {
            i + 1: self._weights(i, orders[i], corrector=True)
            for i in range(begin, steps - 1)
            if i not in config["disable_corrector"]
        }

    def _weights(self, i, order, corrector):
        """Weights of the sample and of x_0 at steps i, i - 1, ... in the sample of step i + 1.

        The corrector has also that of x_0 at step i + 1, before those. `rhos` weigh the differences
        of x_0 to that at step i, each divided by its distance in lambda.
        """
        h = self.lambdas[i + 1] - self.lambdas[i]
        order = order if h else 1
        phi = np.expm1(-h)
        bh = -h if self._bh1 else phi
        unit = np.eye(order + 1)
        x0 = -phi * unit[1]

        distances = [(self.lambdas[i - k] - self.lambdas[i]) / h for k in range(1, order)] + [1.0]
        differences = [(unit[k + 1] - unit[1]) / distances[k - 1] for k in range(1, order)]
        differences.append(unit[0] - unit[1])
        unknowns = order if corrector else order - 1
        rhos = self._rhos(h, phi, bh, distances[:unknowns])
        for rho, difference in zip(rhos, differences):
            x0 -= bh * rho * difference
        return self._row(i, i + 1, x0 if corrector else x0[1:])

    @staticmethod
    def _rhos(h, phi, bh, distances):
        """The paper's R_p a_p B(h) = phi_p solved for a_p; 1/2 where one unknown is left."""
        if len(distances) < 2:
            return [0.5] * len(distances)
        right, factorial = [], 1
        for k in range(1, len(distances) + 1):
            phi = phi / -h - 1 / factorial
            right.append(phi * factorial / bh)
            factorial *= k + 1
        return np.linalg.solve(np.vander(distances, increasing=True).T, right)

    def step(self, model_output, i, sample, randn):
        x0 = self._predict_x0(model_output, i, sample)
        if i in self._corrector:
            sample = tables.weighted_sum(
                self._corrector[i], (self._last_sample, x0, *self._history)
            )
        self._history = [x0, *self._history[:2]]
        self._last_sample = sample
        return tables.weighted_sum(self._predictor[i], (sample, *self._history))
