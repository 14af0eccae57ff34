"""The schedulers of diffusers in NumPy, one image each, configured by `scheduler_config.json`.

Latents after each step are those of the diffusers class of that name to 1e-4, relative.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from triptych.errors import InvalidRequest
from triptych.schedulers.config import read
from triptych.schedulers.ddim import DDIM
from triptych.schedulers.dpmpp_2m import DPMpp2M
from triptych.schedulers.euler import Euler
from triptych.schedulers.euler_ancestral import EulerAncestral
from triptych.schedulers.lcm import LCM
from triptych.schedulers.lms import LMS
from triptych.schedulers.pndm import PNDM
from triptych.schedulers.scheduler import Scheduler
from triptych.schedulers.unipc import UniPC

__all__ = ["NAMES", "TABLE", "Entry", "Scheduler", "create", "default_name", "entry", "resolve"]


class Entry(NamedTuple):
    """A scheduler under the names that others give it.

    `name` is what a request says, `diffusers` the class in diffusers, `sampler` the name in the
    WebUI, or, of a scheduler that the WebUI does not have, one in its style. `options` are the keys
    of `scheduler_config.json` that tell this entry from others of the same diffusers class.
    """

    name: str
    implementation: type[Scheduler]
    diffusers: str
    sampler: str
    options: Mapping[str, Any] = {}

    @property
    def karras(self) -> bool:
        """Whether its sigmas are spread as Karras et al. (2022) do: the WebUI's schedule Karras."""
        return bool(self.options.get("use_karras_sigmas"))

    @property
    def label(self) -> str:
        """The name for people."""
        return f"{self.sampler} Karras" if self.karras else self.sampler


_KARRAS = {"use_karras_sigmas": True}

TABLE = (
    Entry("ddim", DDIM, "DDIMScheduler", "DDIM"),
    Entry("pndm", PNDM, "PNDMScheduler", "PLMS"),
    Entry("lms", LMS, "LMSDiscreteScheduler", "LMS"),
    Entry("euler", Euler, "EulerDiscreteScheduler", "Euler"),
    Entry("euler_ancestral", EulerAncestral, "EulerAncestralDiscreteScheduler", "Euler a"),
    Entry("dpmpp_2m", DPMpp2M, "DPMSolverMultistepScheduler", "DPM++ 2M"),
    Entry("dpmpp_2m_karras", DPMpp2M, "DPMSolverMultistepScheduler", "DPM++ 2M", _KARRAS),
    Entry("unipc", UniPC, "UniPCMultistepScheduler", "UniPC"),
    Entry("lcm", LCM, "LCMScheduler", "LCM"),
)
"""All schedulers. Of one diffusers class, the first entry is the one that its name alone means."""

NAMES = tuple(entry.name for entry in TABLE)
"""The short names, as a request gives them."""

_BY_NAME = {entry.name: entry for entry in TABLE}
_OF_CLASS = {entry.diffusers: entry.name for entry in reversed(TABLE)}


def resolve(name: str) -> str:
    """The short name for a short name or a diffusers class name; InvalidRequest for any other."""
    if name in _BY_NAME:
        return name
    if name in _OF_CLASS:
        return _OF_CLASS[name]
    raise InvalidRequest("scheduler", name, ", ".join([*NAMES, *reversed(_OF_CLASS)]))


def entry(name: str) -> Entry:
    """The entry of a short name; KeyError for any other."""
    return _BY_NAME[name]


def default_name(config: Mapping[str, Any]) -> str:
    """The short name of the scheduler that a model's `scheduler_config.json` is of.

    Raises InvalidRequest where its `_class_name` is none of those served.
    """
    class_name = config.get("_class_name")
    if not isinstance(class_name, str) or class_name not in _OF_CLASS:
        raise InvalidRequest("_class_name", class_name, ", ".join(reversed(_OF_CLASS)))
    fitting = [
        one
        for one in TABLE
        if one.diffusers == class_name
        and all(config.get(key) == value for key, value in one.options.items())
    ]
    return max(fitting, key=lambda one: len(one.options)).name


def create(name: str, config: Mapping[str, Any], num_inference_steps: int) -> Scheduler:
    """A scheduler for one image.

    name: a short or diffusers name. config: the model's `scheduler_config.json`, of whatever class;
    it is read as diffusers' `from_config` reads it, with the entry's `options` in place of its own.
    Raises InvalidRequest, a ValueError, for a name, a step count or a value that is not served.
    """
    found = entry(resolve(name))
    scheduler = found.implementation
    values = read({**config, **found.options}, scheduler.OPTIONS, found.name)
    most = values["num_train_timesteps"]
    if type(num_inference_steps) is not int or not 1 <= num_inference_steps <= most:
        raise InvalidRequest("num_inference_steps", num_inference_steps, f"1 to {most}")
    return scheduler(values, num_inference_steps)
