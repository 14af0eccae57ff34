"""What DPM-Solver++, DEIS and UniPC share: the timesteps, and the predictions of the last steps."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import NOISE_LEVELS, flag, integer, one_of
from triptych.schedulers.scheduler import Scheduler
from triptych.schedulers.spread import OPTIONS as SPREADS
from triptych.schedulers.spread import spread


class Multistep(Scheduler):
    """Steps over lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio.

    `sigmas` and `lambdas`, [steps + 1], end with those to reach; the last lambda may be infinite.
    `alphas`, [steps + 1], are the scale of the signal in the latents, whose variance is kept.
    """

    OPTIONS = {
        **NOISE_LEVELS,
        **SPREADS,
        "rescale_betas_zero_snr": flag(False),
        "prediction_type": one_of("epsilon", "v_prediction", "sample"),
        "timestep_spacing": one_of("linspace", "leading", "trailing"),
        "steps_offset": integer(0, minimum=0),
        "solver_order": one_of(2, 1, 3),
        "lower_order_final": flag(True),
        "final_sigmas_type": one_of("zero", "sigma_min"),
        "thresholding": one_of(False),
        "use_flow_sigmas": one_of(False),
        "use_dynamic_shifting": one_of(False),
    }

    def _schedule(self, config, steps, last=None, karras_timestep=np.round):
        """Make the tables; `last` as in `tables.spacing`, `karras_timestep` makes integers."""
        of_training = tables.training_sigmas(config)
        own = spread(config, of_training, len(of_training) - 1, 0, steps)
        if own is None:
            timesteps = tables.spacing(config, steps, last, intervals=True).round()
            sigmas = np.interp(timesteps, np.arange(len(of_training)), of_training)
        else:
            timesteps, sigmas = own
            whole = karras_timestep if config["use_karras_sigmas"] else np.trunc
            timesteps = whole(timesteps)
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
        self._noising = np.stack([alphas, alphas * sigmas], axis=1).astype(np.float32)
        self._history = []

    def _predict_x0(self, model_output, i, sample):
        return tables.weighted_sum(self._x0[i], (sample, model_output))

    def _row(self, start, end, x0):
        """A row of a table: weights of the sample and of x_0 for a step from `start` to `end`."""
        noise = self.alphas * self.sigmas
        of_sample = noise[end] / noise[start]
        return np.append(of_sample, self.alphas[end] * x0).astype(np.float32)


def multistep_order(i, config, steps) -> int:
    """The order at step i: low at the start for want of a history, at the end to be stable."""
    stable = config["lower_order_final"] and steps < 15
    to_zero = config["final_sigmas_type"] == "zero" or config.get("euler_at_final")
    if i == steps - 1 and (stable or to_zero):
        return 1
    known = max(1, i - config["begin"] + 1)
    return min(config["solver_order"], known, 2 if stable and i == steps - 2 else 3)
