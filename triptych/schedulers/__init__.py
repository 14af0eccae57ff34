"""The schedulers of diffusers in NumPy, one image each, configured by `scheduler_config.json`.

Latents after each step are those of the diffusers class of that name to 1e-4, relative.
"""

from __future__ import annotations

from typing import Any, Mapping

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

__all__ = ["NAMES", "Scheduler", "create", "default_name", "resolve"]

_CLASSES = {
    "ddim": DDIM,
    "pndm": PNDM,
    "lms": LMS,
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "dpmpp_2m": DPMpp2M,
    "dpmpp_2m_karras": DPMpp2M,
    "unipc": UniPC,
    "lcm": LCM,
}
_DIFFUSERS_NAMES = {
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "pndm",
    "LMSDiscreteScheduler": "lms",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
}

NAMES = tuple(_CLASSES)
"""The short names, as a request gives them."""


def resolve(name: str) -> str:
    """The short name for a short name or a diffusers class name; InvalidRequest for any other."""
    if name in _CLASSES:
        return name
    if name in _DIFFUSERS_NAMES:
        return _DIFFUSERS_NAMES[name]
    raise InvalidRequest("scheduler", name, ", ".join([*NAMES, *_DIFFUSERS_NAMES]))


def default_name(config: Mapping[str, Any]) -> str:
    """The short name of the scheduler that a model's `scheduler_config.json` is of.

    Raises InvalidRequest where its `_class_name` is none of those served.
    """
    class_name = config.get("_class_name")
    if not isinstance(class_name, str) or class_name not in _DIFFUSERS_NAMES:
        raise InvalidRequest("_class_name", class_name, ", ".join(_DIFFUSERS_NAMES))
    name = _DIFFUSERS_NAMES[class_name]
    karras = name == "dpmpp_2m" and config.get("use_karras_sigmas")
    return "dpmpp_2m_karras" if karras else name


def create(name: str, config: Mapping[str, Any], num_inference_steps: int) -> Scheduler:
    """A scheduler for one image.

    name: a short or diffusers name. config: the model's `scheduler_config.json`, of whatever class;
    it is read as diffusers' `from_config` reads it, and dpmpp_2m_karras sets use_karras_sigmas.
    Raises InvalidRequest, a ValueError, for a name, a step count or a value that is not served.
    """
    name = resolve(name)
    scheduler = _CLASSES[name]
    values = read(config, scheduler.OPTIONS, name)
    if name == "dpmpp_2m_karras":
        values["use_karras_sigmas"] = True
    most = values["num_train_timesteps"]
    if type(num_inference_steps) is not int or not 1 <= num_inference_steps <= most:
        raise InvalidRequest("num_inference_steps", num_inference_steps, f"1 to {most}")
    return scheduler(values, num_inference_steps)
