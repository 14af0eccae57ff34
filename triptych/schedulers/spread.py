"""Sigmas that are spread by a formula, in place of those of evenly spread timesteps."""

from __future__ import annotations

import math

import numpy as np

from triptych.schedulers.config import flag

OPTIONS = {
    "use_karras_sigmas": flag(False),
    "use_exponential_sigmas": flag(False),
    "use_beta_sigmas": flag(False),
}
"""At most one of them is true: `schedulers.resolve` refuses a file with more."""

_BETA = 0.6


def spread(config, of_training, first, last, steps) -> tuple[np.ndarray, np.ndarray] | None:
    """Timesteps and sigmas, [steps] each, from the sigma of timestep `first` to that of `last`.

    None if `config` asks for none of OPTIONS. `of_training`: the sigmas of all training timesteps.
    Karras sigmas are equation 5 of Karras et al. (2022) with rho = 7, exponential ones are evenly
    spread in log sigma, beta ones are the quantiles of the beta distribution with both parameters
    0.6 (Lee et al., 2024, "Beta Sampling is All You Need"). Their timesteps are fractional.
    """
    asked = [key for key in OPTIONS if config.get(key)]
    if not asked:
        return None
    high, low = np.interp([first, last], np.arange(len(of_training)), of_training)
    ramp = np.linspace(0, 1, steps)
    if asked == ["use_karras_sigmas"]:
        sigmas = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    elif asked == ["use_exponential_sigmas"]:
        sigmas = np.exp(np.linspace(math.log(high), math.log(low), steps))
    else:
        sigmas = low + beta_quantiles(1 - ramp) * (high - low)
    timesteps = timesteps_of(sigmas, of_training)
    timesteps[0] = first
    return timesteps, sigmas


def timesteps_of(sigmas, of_training) -> np.ndarray:
    """The fractional timesteps of `sigmas`, linear in log sigma.

    They are counted from the last training sigma that is not larger: with zero terminal SNR the
    training sigmas can fall again at the end.
    """
    logs, wanted = np.log(of_training), np.log(sigmas)
    below = np.cumsum(wanted[:, None] >= logs, axis=1).argmax(axis=1)
    below = np.minimum(below, len(logs) - 2)
    above = (wanted - logs[below]) / (logs[below + 1] - logs[below])
    return below + np.clip(above, 0, 1)


def beta_quantiles(probabilities) -> np.ndarray:
    """The quantiles of the beta distribution whose two parameters are 0.6, to 1e-14.

    The distribution is symmetric, so the lower half tells all. Its cumulative function is there a
    power series (Abramowitz and Stegun, 1964, 26.5.4 and 15.1.1) whose k-th term is less than
    2**-k. As a function of y = x**0.6 it is nearly a line, so Newton's method inverts it quickly.
    """
    probabilities = np.asarray(probabilities, np.float64)
    k = np.arange(50)
    terms = np.cumprod(np.append(1, (k[1:] - _BETA) / k[1:])) / (k + _BETA)
    terms *= math.gamma(2 * _BETA) / math.gamma(_BETA) ** 2
    wanted = np.minimum(probabilities, 1 - probabilities)
    y = wanted / terms[0]
    for _ in range(6):
        x = y ** (1 / _BETA)
        y -= (y * np.polyval(terms[::-1], x) - wanted) * (1 - x) ** (1 - _BETA) / terms[0]
    x = y ** (1 / _BETA)
    return np.where(probabilities < 0.5, x, 1 - x)
