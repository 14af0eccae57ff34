"""DEIS: Fast Sampling of Diffusion Models with Exponential Integrator, Zhang and Chen, 2022."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import one_of, without
from triptych.schedulers.multistep import Multistep, multistep_order


class DEIS(Multistep):
    """rho-AB-DEIS of the paper: the noise as a polynomial of log rho, integrated.

    rho is sigma / alpha, `sigmas` here; as in diffusers the last one is the smallest of training.
    """

    OPTIONS = {
        **without(Multistep.OPTIONS, "final_sigmas_type", "rescale_betas_zero_snr"),
        # As in diffusers, the values that only other classes know mean the default.
        "algorithm_type": one_of("deis", "dpmsolver", "dpmsolver++"),
        "solver_type": one_of("logrho", "midpoint", "heun", "bh1", "bh2"),
    }

    def __init__(self, config, steps):
        config = {**config, "final_sigmas_type": "sigma_min"}
        self._schedule(config, steps)
        alphas, sigmas = self.alphas[:-1], (self.alphas * self.sigmas)[:-1]
        x0 = tables.x0_weights(config["prediction_type"], alphas, sigmas)
        self._noise = tables.noise_weights(x0, alphas, sigmas).astype(np.float32)
        orders = [multistep_order(i, config, steps) for i in range(steps)]
        self._table = [self._weights(i, order) for i, order in enumerate(orders)]

    def _weights(self, i, order):
        """Weights of the sample and of the noise at steps i, i - 1, ... in that of step i + 1.

        Those of the noise are integrals of Lagrange polynomials over rho. With u = log(rho / rho at
        step i), the integral of p(u) * exp(u) is (p - p' + p'')(u) * exp(u).
        """
        points = self.lambdas[i] - self.lambdas[i - np.arange(order)]
        end = self.lambdas[i] - self.lambdas[i + 1]
        integrals = []
        for k, point in enumerate(points):
            others = np.delete(points, k)
            lagrange = np.poly1d(others, r=True) / np.prod(point - others)
            within = lagrange - lagrange.deriv() + lagrange.deriv(2)
            integrals.append(within(end) * np.exp(end) - within(0))
        weights = np.append(1 / self.alphas[i], self.sigmas[i] * np.array(integrals))
        return (self.alphas[i + 1] * weights).astype(np.float32)

    def step(self, model_output, i, sample, randn):
        noise = tables.weighted_sum(self._noise[i], (sample, model_output))
        self._history = [noise, *self._history[:2]]
        return tables.weighted_sum(self._table[i], (sample, *self._history))
