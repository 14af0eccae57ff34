"""What DPM-Solver++ and UniPC share: the timesteps, and the predicted x_0 of the last steps."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import NOISE_LEVELS, flag, integer, one_of
from triptych.schedulers.scheduler import Scheduler


class Multistep(Scheduler):
    """Steps over lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio.

    `sigmas` and `lambdas`, [steps + 1], end with those to reach; the last lambda may be infinite.
    `alphas`, [steps + 1], are the scale of the signal in the latents, whose variance is kept.
    """

    OPTIONS = {
        **NOISE_LEVELS,
        "rescale_betas_zero_snr": flag(False),
        "prediction_type": one_of("epsilon", "v_prediction", "sample"),
        "timestep_spacing": one_of("linspace", "leading", "trailing"),
        "steps_offset": integer(0, minimum=0),
        "solver_order": one_of(2, 1, 3),
        "lower_order_final": flag(True),
        "final_sigmas_type": one_of("zero", "sigma_min"),
        "thresholding": one_of(False),
        "use_karras_sigmas": flag(False),
        "use_exponential_sigmas": one_of(False),
        "use_beta_sigmas": one_of(False),
        "use_flow_sigmas": one_of(False),
        "use_dynamic_shifting": one_of(False),
    }

    def _schedule(self, config, steps, last=None, karras_timestep=np.round):
        """Make the tables; `last` as in `tables.spacing`, `karras_timestep` makes integers."""
        of_training = tables.training_sigmas(config)
        timesteps = tables.spacing(config, steps, last, intervals=True).round()
        sigmas = np.interp(timesteps, np.arange(len(of_training)), of_training)
        if config["use_karras_sigmas"]:
            timesteps, sigmas = tables.karras(of_training, len(of_training) - 1, 0, steps)
            timesteps = karras_timestep(timesteps)
        tables.require_distinct(sigmas, config, steps)
        final = of_training[0] if config["final_sigmas_type"] == "sigma_min" else 0.0
        self.timesteps = timesteps.astype(np.float32)
        self.sigmas = np.append(sigmas, final)
        self.alphas = (self.sigmas**2 + 1) ** -0.5
        with np.errstate(divide="ignore"):
            self.lambdas = -np.log(self.sigmas)
        alphas = self.alphas[:-1]
        x0 = tables.x0_weights(config["prediction_type"], alphas, alphas * sigmas)
        self._x0 = x0.astype(np.float32)
        self._history = []

    def _predict_x0(self, model_output, i, sample):
        return tables.weighted_sum(self._x0[i], (sample, model_output))

    def _row(self, i, x0):
        """A row of a table: weights of the sample and of x_0 for the step from i to i + 1."""
        alphas, sigmas = self.alphas[i : i + 2], self.sigmas[i : i + 2]
        of_sample = (alphas[1] * sigmas[1]) / (alphas[0] * sigmas[0])
        return np.append(of_sample, alphas[1] * x0).astype(np.float32)
