"""What DDIM, DDPM, LCM and TCD share: x_0 is predicted at each step, clipped if asked for."""

from __future__ import annotations

import numpy as np

from triptych.errors import InvalidRequest
from triptych.schedulers import tables
from triptych.schedulers.config import NOISE_LEVELS, flag, one_of, real
from triptych.schedulers.scheduler import Scheduler


class AlphaSpace(Scheduler):
    """Latents alpha * x_0 + sigma * noise of variance 1."""

    OPTIONS = {
        **NOISE_LEVELS,
        "rescale_betas_zero_snr": flag(False),
        "prediction_type": one_of("epsilon", "v_prediction", "sample"),
        "clip_sample": flag(False),
        "clip_sample_range": real(1.0, minimum=0, maximum=1e6),
        "thresholding": one_of(False),
    }

    def _prepare(self, config, signal):
        """alpha and sigma, [steps], of the timesteps where `signal` is alphas_cumprod."""
        predicts_noise = config["prediction_type"] == "epsilon"
        if predicts_noise and not config["clip_sample"] and not signal.all():
            allowed = "v_prediction or sample, where rescale_betas_zero_snr starts from noise alone"
            raise InvalidRequest("prediction_type", "epsilon", allowed)
        # An alpha of 0 may stand below a fraction bar; clipping then takes care of the result.
        alpha = np.maximum(np.sqrt(signal.astype(np.float64)), 1e-15)
        sigma = np.sqrt(1 - signal.astype(np.float64))
        self._x0 = tables.x0_weights(config["prediction_type"], alpha, sigma).astype(np.float32)
        self._noising = np.stack([np.sqrt(signal), np.sqrt(1 - signal)], axis=1)
        self._limit = config["clip_sample_range"] if config["clip_sample"] else None
        return alpha, sigma

    def _predict_x0(self, model_output, i, sample):
        x0 = tables.weighted_sum(self._x0[i], (sample, model_output))
        if self._limit is not None:
            np.clip(x0, -self._limit, self._limit, out=x0)
        return x0
