"""What Heun and DPM2 share: a step calls the model twice, at its start and at a middle point."""

from __future__ import annotations

import numpy as np

from triptych.schedulers.sigma_space import SigmaSpace


class TwoCalls(SigmaSpace):
    """From the start of a step to its middle point, then again from the start to its end.

    Each of the two ways is a straight line along the derivative that its call gives. The last step
    goes to its end at once, so there are 2 * steps - 1 calls.
    """

    CALLS_A_STEP = 2

    def _tabulate_steps(self, config, start, middle, end):
        """`start` and `middle`: timesteps and sigmas, [steps] and [steps - 1]. `end`: sigmas."""
        timesteps, sigmas = (_alternate(*pair) for pair in zip(start, middle))
        self._tabulate(config, timesteps, sigmas)
        # As in diffusers, noise at a middle point is that of the step's end, with DPM2 too.
        self._noising[1::2, 1] = self._sigmas[2::2]
        starts, middles, ends = (one.astype(np.float32) for one in (start[1], middle[1], end))
        to_middle = np.append(middles, ends[-1]) - starts
        self._change = _alternate(to_middle, (ends - starts)[:-1])

    def step(self, model_output, i, sample, randn):
        slope = self._derivative(model_output, i, sample)
        if i % 2 == 0:
            self._sample, self._first_slope = sample, slope
        else:
            slope = self._second_slope(slope)
        prev_sample = slope * self._change[i]
        prev_sample += self._sample
        return prev_sample

    def _second_slope(self, slope):
        """The slope to follow to the end of the step; `slope` is the derivative in the middle."""
        return slope


def _alternate(first, second) -> np.ndarray:
    """first[0], second[0], first[1], ..., first[-1]."""
    both = np.empty(len(first) + len(second), np.result_type(first, second))
    both[::2], both[1::2] = first, second
    return both
