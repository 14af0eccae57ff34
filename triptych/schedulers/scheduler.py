"""What the denoising loop needs of a scheduler."""

from __future__ import annotations

from typing import Callable

import numpy as np

from triptych.schedulers import tables


class Scheduler:
    """The denoising of one image: a table made at the start, and a step that uses a row of it.

    timesteps: float32, [calls], what the UNet is given at each of its calls. PNDM has one call more
    than steps, Heun and DPM2 two calls a step but the last, the others one a step.
    init_noise_sigma: the standard deviation of the noise that the loop starts from.
    begin: the call to start at; those before it are not made. It is 0 for an image that starts from
    noise alone.

    Subclasses define OPTIONS, the keys of `scheduler_config.json` that they read, and make their
    table in `__init__(config, steps)` from the values of OPTIONS and from `config["begin"]`;
    `schedulers.create` calls it. `_noising`, float32 [calls, 2], are the weights of a clean sample
    and of noise in the latents before each call. `CALLS_A_STEP` is what diffusers calls `order`.
    """

    OPTIONS: dict = {}
    CALLS_A_STEP = 1
    timesteps: np.ndarray
    init_noise_sigma = 1.0
    begin = 0
    _noising: np.ndarray

    def add_noise(self, sample: np.ndarray, noise: np.ndarray, i: int) -> np.ndarray:
        """`sample`, clean latents, with as much of `noise` as the latents have before call `i`."""
        return tables.weighted_sum(self._noising[i], (sample, noise))

    def step_of(self, call: int) -> int:
        """The step, from 0, that a call belongs to; both count from the first one that is made."""
        return call // self.CALLS_A_STEP

    def scale_model_input(self, sample: np.ndarray, i: int) -> np.ndarray:
        """What the UNet is given in place of `sample`, the latents, at call `i`."""
        return sample

    def step(
        self,
        model_output: np.ndarray,
        i: int,
        sample: np.ndarray,
        randn: Callable[[tuple], np.ndarray],
    ) -> np.ndarray:
        """prev_sample, the latents after call `i`; calls come in order from `begin`, each once.

        model_output: the UNet's answer for `scale_model_input(sample, i)`, after guidance.
        sample: the latents that the step before returned. randn: the noise stream of the request.
        All float32 of one shape. The result is a new array. `sample` may be kept for later calls,
        so nobody may write to it; `model_output` is not kept.
        """
        raise NotImplementedError
