"""PNDM: Pseudo Numerical Methods for Diffusion Models on Manifolds, Liu, Ren, Lin, Zhao, 2022."""

from __future__ import annotations

import numpy as np

from triptych.errors import InvalidRequest
from triptych.schedulers import tables
from triptych.schedulers.config import NOISE_LEVELS, flag, integer, one_of
from triptych.schedulers.scheduler import Scheduler

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
_RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class PNDM(Scheduler):
    """A linear multistep slope (equation 12), along which the transfer of equation 9 goes.

    The first three steps are Runge-Kutta steps of four calls each (equation 13). With
    skip_prk_steps, as in Stable Diffusion, they are multistep too, and the first is made twice: the
    second time from the same sample, with the mean slope of its two ends.
    """

    OPTIONS = {
        **NOISE_LEVELS,
        "prediction_type": one_of("epsilon", "v_prediction"),
        "timestep_spacing": one_of("leading", "trailing", "linspace"),
        "steps_offset": integer(0, minimum=0),
        "set_alpha_to_one": flag(False),
        "skip_prk_steps": flag(False),
    }

    def __init__(self, config, steps):
        gap = config["num_train_timesteps"] // steps
        timesteps = tables.training_timesteps(config, steps)
        if config["skip_prk_steps"]:
            calls = np.insert(timesteps, 1, timesteps[1:2])
            self._prk_calls = 0
        elif steps < 4:
            allowed = "at least 4, for scheduler pndm without skip_prk_steps"
            raise InvalidRequest("num_inference_steps", steps, allowed)
        else:
            first, then, rest = timesteps[:3], timesteps[1:4], timesteps[3:]
            middle = then + gap // 2
            calls = np.append(np.stack([first, middle, middle, then], axis=1), rest)
            self._prk_calls = 12

        self.timesteps = calls.astype(np.float32)
        signal = tables.signal_at(calls, config)
        self._noising = np.sqrt(np.stack([signal, 1 - signal], axis=1))
        start, end = calls.copy(), calls - gap
        within = slice(config["begin"], None)
        start[within], end[within] = self._ends(calls, calls[within], gap)
        self._tabulate_transfer(start, end, config)
        self._slopes = []

    def step_of(self, call):
        if call < self._prk_calls:
            return call // 4
        return call - 9 if self._prk_calls else max(0, call - 1)

    def _ends(self, calls, made, gap):
        """The timesteps between which each of the calls `made`, the last ones of `calls`, goes.

        As in diffusers, the first calls that are made are the first of the method whatever their
        timesteps are: the second one repeats, and Runge-Kutta steps begin at those of the table.
        """
        start, end = made.copy(), made - gap
        count = min(self._prk_calls, len(made))
        if count:
            number = np.arange(count)
            start[:count] = calls[number // 4 * 4]
            end[:count] = made[:count] - np.where(number % 2, 0, gap // 2)
        else:
            start[1:2], end[1:2] = made[1:2] + gap, made[1:2]
        return start, end

    def _tabulate_transfer(self, start, end, config):
        """The factors of equation 9 from timestep `start` to `end`, float32 [calls]."""
        signal, prev_signal = tables.signal_at(start, config), tables.signal_at(end, config)
        root = np.sqrt(signal * (1 - signal) * prev_signal)
        self._of_sample = np.sqrt(prev_signal / signal)
        self._of_noise = prev_signal - signal
        self._denominator = signal * np.sqrt(1 - prev_signal) + root
        self._noise = np.tile(np.float32([1, 0]), (len(signal), 1))
        if config["prediction_type"] == "v_prediction":
            self._noise = np.sqrt(np.stack([signal, 1 - signal], axis=1))

    def step(self, model_output, i, sample, randn):
        i_made = i - self.begin
        in_prk = i_made < self._prk_calls
        repeated = i_made == 1 and not in_prk
        if i_made % 4 == 0 if in_prk else not repeated:
            self._sample = sample
            self._slopes = [model_output.copy(), *self._slopes[:3]]

        if in_prk:
            slope = self._runge_kutta(model_output, i_made % 4)
        elif repeated:
            slope = tables.weighted_sum((0.5, 0.5), (model_output, self._slopes[0]))
        else:
            slope = tables.weighted_sum(_ADAMS_BASHFORTH[len(self._slopes) - 1], self._slopes)
        return self._transfer(slope, i)

    def _runge_kutta(self, model_output, stage):
        """The slope to follow after each of the four calls of a step; the last is the mean."""
        part = _RUNGE_KUTTA[stage] * model_output
        self._mean = part if stage == 0 else self._mean + part
        return self._mean if stage == 3 else model_output

    def _transfer(self, slope, i):
        noise = tables.weighted_sum(self._noise[i], (slope, self._sample))
        noise *= self._of_noise[i]
        noise /= self._denominator[i]
        prev_sample = self._of_sample[i] * self._sample
        prev_sample -= noise
        return prev_sample
