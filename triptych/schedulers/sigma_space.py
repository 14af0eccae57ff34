"""What Euler, LMS, Heun, DPM2 and the ancestral ones share: latents kept as x_0 + sigma * noise."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import NOISE_LEVELS, integer, one_of
from triptych.schedulers.scheduler import Scheduler
from triptych.schedulers.spread import spread


class SigmaSpace(Scheduler):
    """Latents whose signal is not scaled down, so that the noise in them is d sample / d sigma.

    That is the ODE of equation 1 of Karras et al. (2022) with sigma as time. The UNet was trained
    on latents of variance 1, hence the scaling of its input. The arithmetic keeps the order that
    diffusers has: sigmas of a zero terminal SNR or of a cosine are so large that another order
    rounds to other latents.
    """

    OPTIONS = {
        **NOISE_LEVELS,
        "prediction_type": one_of("epsilon", "v_prediction", "sample"),
        "timestep_spacing": one_of("linspace", "leading", "trailing"),
        "steps_offset": integer(0, minimum=0),
    }
    _limit: float | None = None
    """Where the predicted x_0 is clipped, for the classes that clip."""

    def _schedule(self, config, steps):
        """The timesteps of the steps and their sigmas, [steps] each."""
        of_training = tables.training_sigmas(config)
        timesteps = tables.spacing(config, steps).astype(np.float32)
        own = spread(config, of_training, timesteps[0], timesteps[-1], steps)
        return own or (timesteps, np.interp(timesteps, np.arange(len(of_training)), of_training))

    def _tabulate(self, config, timesteps, sigmas):
        """Make the tables for calls at `timesteps`, where the noise in the latents is `sigmas`."""
        alpha = (sigmas**2 + 1) ** -0.5
        x0 = tables.x0_weights(config["prediction_type"], alpha, alpha * sigmas)
        x0[:, 0] *= alpha

        self.timesteps = timesteps.astype(np.float32)
        self._sigmas = sigmas.astype(np.float32)
        from_zero_mean = config["timestep_spacing"] == "leading"
        self.init_noise_sigma = float(np.sqrt(self._sigmas.max() ** 2 + from_zero_mean))
        self._input_scale = alpha.astype(np.float32)
        self._x0 = x0.astype(np.float32)
        self._noising = np.stack([np.ones_like(self._sigmas), self._sigmas], axis=1)

    def scale_model_input(self, sample, i):
        return sample * self._input_scale[i]

    def _derivative(self, model_output, i, sample):
        """d sample / d sigma at call i: (sample - x_0) / sigma."""
        x0 = tables.weighted_sum(self._x0[i], (sample, model_output))
        if self._limit is not None:
            np.clip(x0, -self._limit, self._limit, out=x0)
        derivative = np.subtract(sample, x0, out=x0)
        derivative /= self._sigmas[i]
        return derivative


class OneCall(SigmaSpace):
    """One call a step. `sigmas`, float32 [steps + 1], end with the one to reach."""

    def __init__(self, config, steps):
        timesteps, sigmas = self._schedule(config, steps)
        self._tabulate(config, timesteps, sigmas)
        to_smallest = config.get("final_sigmas_type") == "sigma_min"
        final = tables.training_sigmas(config)[0] if to_smallest else np.float32(0)
        self.sigmas = np.append(self._sigmas, final)


def ancestral(sigmas) -> tuple[np.ndarray, np.ndarray]:
    """sigma_down and sigma_up of the steps between `sigmas`, float64, [steps] each.

    A step goes to sigma_down, then new noise of sigma_up is added. They are the parts of the
    posterior of a forward step (equation 7 of Ho et al., 2020): sigma_up**2 = next**2 * (sigma**2 -
    next**2) / sigma**2, sigma_down**2 = next**2 - sigma_up**2.
    """
    sigmas, following = sigmas[:-1].astype(np.float64), sigmas[1:].astype(np.float64)
    return following**2 / sigmas, following * np.sqrt(1 - (following / sigmas) ** 2)
