"""What Euler, Euler ancestral and LMS share: latents kept as x_0 + sigma * noise."""

from __future__ import annotations

import numpy as np

from triptych.schedulers import tables
from triptych.schedulers.config import NOISE_LEVELS, integer, one_of
from triptych.schedulers.scheduler import Scheduler


class SigmaSpace(Scheduler):
    """Latents whose signal is not scaled down, so that the noise in them is d sample / d sigma.

    That is the ODE of equation 1 of Karras et al. (2022) with sigma as time. The UNet was trained
    on latents of variance 1, hence the scaling of its input. `sigmas`, float32 [steps + 1], end
    with the one to reach. The arithmetic keeps the order that diffusers has: sigmas of a zero
    terminal SNR or of a cosine are so large that another order rounds to other latents.
    """

    OPTIONS = {
        **NOISE_LEVELS,
        "prediction_type": one_of("epsilon", "v_prediction", "sample"),
        "timestep_spacing": one_of("linspace", "leading", "trailing"),
        "steps_offset": integer(0, minimum=0),
    }

    def __init__(self, config, steps):
        of_training = tables.training_sigmas(config)
        timesteps = tables.spacing(config, steps).astype(np.float32)
        sigmas = np.interp(timesteps, np.arange(len(of_training)), of_training)
        if config.get("use_karras_sigmas"):
            timesteps, sigmas = tables.karras(of_training, timesteps[0], timesteps[-1], steps)
        final = of_training[0] if config.get("final_sigmas_type") == "sigma_min" else 0
        alpha = (sigmas**2 + 1) ** -0.5
        x0 = tables.x0_weights(config["prediction_type"], alpha, alpha * sigmas)
        x0[:, 0] *= alpha

        self.timesteps = timesteps.astype(np.float32)
        self.sigmas = np.append(sigmas, final).astype(np.float32)
        from_zero_mean = config["timestep_spacing"] == "leading"
        self.init_noise_sigma = float(np.sqrt(self.sigmas.max() ** 2 + from_zero_mean))
        self._input_scale = alpha.astype(np.float32)
        self._x0 = x0.astype(np.float32)

    def scale_model_input(self, sample, i):
        return sample * self._input_scale[i]

    def _derivative(self, model_output, i, sample):
        """d sample / d sigma at step i: (sample - x_0) / sigma."""
        x0 = tables.weighted_sum(self._x0[i], (sample, model_output))
        derivative = np.subtract(sample, x0, out=x0)
        derivative /= self.sigmas[i]
        return derivative
