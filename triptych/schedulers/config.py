"""Reading of `scheduler_config.json`: a key, its default, the values that are allowed."""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple

from triptych.errors import InvalidRequest, shorten


class Option(NamedTuple):
    """A key that a scheduler reads: what a file without it means, and which values it may have."""

    default: Any
    is_allowed: Callable[[Any], bool]
    allowed: str


def one_of(default, *others) -> Option:
    """These values and no other; with one value, a feature of diffusers that is not served."""
    values = (default, *others)
    return Option(
        default,
        lambda value: any(type(value) is type(one) and value == one for one in values),
        " or ".join(shorten(one) for one in values),
    )


def flag(default: bool) -> Option:
    return one_of(default, not default)


def integer(default: int, minimum: int) -> Option:
    return Option(
        default,
        lambda value: type(value) is int and value >= minimum,
        f"an integer from {minimum}",
    )


def real(default: float, minimum: float, maximum: float) -> Option:
    return Option(
        default,
        lambda value: type(value) in (int, float) and minimum <= value <= maximum,
        f"a number from {minimum} to {maximum}",
    )


def _is_betas(value) -> bool:
    return value is None or (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(type(beta) in (int, float) and 0 < beta < 1 for beta in value)
    )


def without(options: Mapping[str, Option], *keys: str) -> dict[str, Option]:
    """`options` but for those that the class of diffusers does not have."""
    return {key: option for key, option in options.items() if key not in keys}


SPACINGS = ("leading", "linspace", "trailing")
"""The values of `timestep_spacing`; the classes differ in their defaults."""

NOISE_LEVELS = {
    "num_train_timesteps": integer(1000, minimum=2),
    "beta_start": real(0.0001, minimum=1e-9, maximum=0.9999),
    "beta_end": real(0.02, minimum=1e-9, maximum=0.9999),
    "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": Option(
        None, _is_betas, "null or a list of num_train_timesteps numbers between 0 and 1"
    ),
}
"""What every scheduler reads to know the noise that its model was trained with."""

LATENT_NOISE_LEVELS = {
    **NOISE_LEVELS,
    "beta_start": real(0.00085, minimum=1e-9, maximum=0.9999),
    "beta_end": real(0.012, minimum=1e-9, maximum=0.9999),
}
"""The same for the classes whose defaults are the betas of latent diffusion."""


def read(config: Mapping[str, Any], options: Mapping[str, Option], scheduler: str) -> dict:
    """The values of `options` in `config`, defaults for the missing ones; other keys are ignored.

    So a scheduler reads the file of another class as diffusers' `from_config` does.
    Raises InvalidRequest, a ValueError, that names the key, its value and what `scheduler` allows.
    """
    values = {}
    for key, option in options.items():
        values[key] = config.get(key, option.default)
        if not option.is_allowed(values[key]):
            raise InvalidRequest(key, values[key], f"{option.allowed}, for scheduler {scheduler}")
    return values
