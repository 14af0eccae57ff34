"""The schedulers of diffusers in NumPy, one image each, configured by `scheduler_config.json`.

Latents after each step are those of the diffusers class of that name to 1e-4, relative.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from triptych.errors import InvalidRequest
from triptych.schedulers.config import SPACINGS, read
from triptych.schedulers.ddim import DDIM
from triptych.schedulers.ddpm import DDPM
from triptych.schedulers.deis import DEIS
from triptych.schedulers.dpm2 import DPM2, DPM2Ancestral
from triptych.schedulers.dpmpp_2m import DPMpp2M
from triptych.schedulers.dpmpp_2s import DPMpp2S
from triptych.schedulers.euler import Euler
from triptych.schedulers.euler_ancestral import EulerAncestral
from triptych.schedulers.heun import Heun
from triptych.schedulers.lcm import LCM
from triptych.schedulers.lms import LMS
from triptych.schedulers.pndm import PNDM
from triptych.schedulers.scheduler import Scheduler
from triptych.schedulers.tcd import TCD
from triptych.schedulers.unipc import UniPC

__all__ = [
    "ALLOWED",
    "NAMES",
    "SPACINGS",
    "TABLE",
    "Entry",
    "Scheduler",
    "create",
    "default_name",
    "entry",
    "resolve",
]


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
    def schedule(self) -> str | None:
        """How its sigmas are spread, as the WebUI calls it; None if by its timesteps."""
        return next((name for name, key in _SCHEDULES.items() if key in self.options), None)

    @property
    def label(self) -> str:
        """The name for people."""
        return f"{self.sampler} {self.schedule}" if self.schedule else self.sampler

    def with_schedules(self) -> tuple[Entry, ...]:
        """This entry, and those that spread its sigmas by a formula."""
        return (
            self,
            *(
                self._replace(
                    name=f"{self.name}_{schedule.lower()}", options={**self.options, key: True}
                )
                for schedule, key in _SCHEDULES.items()
            ),
        )


_SCHEDULES = {
    "Karras": "use_karras_sigmas",
    "Exponential": "use_exponential_sigmas",
    "Beta": "use_beta_sigmas",
}
_DPM_SOLVER = "DPMSolverMultistepScheduler"
_SINGLESTEP = "DPMSolverSinglestepScheduler"
_SDE = {"algorithm_type": "sde-dpmsolver++"}

TABLE = (
    Entry("ddim", DDIM, "DDIMScheduler", "DDIM"),
    Entry("ddpm", DDPM, "DDPMScheduler", "DDPM"),
    Entry("pndm", PNDM, "PNDMScheduler", "PLMS"),
    *Entry("lms", LMS, "LMSDiscreteScheduler", "LMS").with_schedules(),
    *Entry("euler", Euler, "EulerDiscreteScheduler", "Euler").with_schedules(),
    Entry("euler_ancestral", EulerAncestral, "EulerAncestralDiscreteScheduler", "Euler a"),
    *Entry("heun", Heun, "HeunDiscreteScheduler", "Heun").with_schedules(),
    *Entry("dpm2", DPM2, "KDPM2DiscreteScheduler", "DPM2").with_schedules(),
    *Entry(
        "dpm2_ancestral", DPM2Ancestral, "KDPM2AncestralDiscreteScheduler", "DPM2 a"
    ).with_schedules(),
    *Entry("dpmpp_2m", DPMpp2M, _DPM_SOLVER, "DPM++ 2M").with_schedules(),
    *Entry("dpmpp_2m_sde", DPMpp2M, _DPM_SOLVER, "DPM++ 2M SDE", _SDE).with_schedules(),
    *Entry("dpmpp_2s", DPMpp2S, _SINGLESTEP, "DPM++ 2S").with_schedules(),
    *Entry("dpmpp_2s_sde", DPMpp2S, _SINGLESTEP, "DPM++ 2S SDE", _SDE).with_schedules(),
    *Entry("deis", DEIS, "DEISMultistepScheduler", "DEIS").with_schedules(),
    *Entry("unipc", UniPC, "UniPCMultistepScheduler", "UniPC").with_schedules(),
    Entry("lcm", LCM, "LCMScheduler", "LCM"),
    Entry("tcd", TCD, "TCDScheduler", "TCD"),
)
"""All schedulers. Of one diffusers class, the first entry is the one that its name alone means."""

NAMES = tuple(entry.name for entry in TABLE)
"""The short names, as a request gives them."""

ALLOWED = "{}; {} also with {} at its end; or a class name of diffusers".format(
    ", ".join(entry.name for entry in TABLE if not entry.schedule),
    ", ".join(dict.fromkeys(entry.name.rpartition("_")[0] for entry in TABLE if entry.schedule)),
    ", ".join(f"_{schedule.lower()}" for schedule in _SCHEDULES),
)
"""What a request may say, in short, for people."""

_BY_NAME = {entry.name: entry for entry in TABLE}
_CLASSES = tuple(dict.fromkeys(entry.diffusers for entry in TABLE))


def resolve(name: str, config: Mapping[str, Any] = {}) -> str:
    """The short name for a short name or a diffusers class name; InvalidRequest for any other.

    A class may stand for several entries: the one that the class's `from_config(config)` would be.
    """
    if name in _BY_NAME:
        return name
    fitting = [
        one
        for one in TABLE
        if one.diffusers == name
        and all(config.get(key) == value for key, value in one.options.items())
    ]
    if not fitting:
        raise InvalidRequest("scheduler", name, ALLOWED)
    spread = [key for key in _SCHEDULES.values() if config.get(key) is True]
    if len(spread) > 1 and spread[0] in fitting[0].implementation.OPTIONS:
        raise InvalidRequest(spread[1], True, f"false, with {spread[0]}")
    return max(fitting, key=lambda one: len(one.options)).name


def entry(name: str) -> Entry:
    """The entry of a short name; KeyError for any other."""
    return _BY_NAME[name]


def default_name(config: Mapping[str, Any]) -> str:
    """The short name of the scheduler that a model's `scheduler_config.json` is of.

    Raises InvalidRequest where its `_class_name` is none of those served.
    """
    class_name = config.get("_class_name")
    if class_name not in _CLASSES:
        raise InvalidRequest("_class_name", class_name, ", ".join(_CLASSES))
    return resolve(class_name, config)


def create(
    name: str,
    config: Mapping[str, Any],
    num_inference_steps: int,
    timestep_spacing: str | None = None,
    eta: float | None = None,
    strength: float | None = None,
) -> Scheduler:
    """A scheduler for one image.

    name: a short or diffusers name. config: the model's `scheduler_config.json`, of whatever class;
    it is read as diffusers' `from_config` reads it, but that a short name alone says which entry is
    meant: `dpmpp_2m` has no Karras sigmas, whatever the file says. `timestep_spacing`, one of
    SPACINGS, and `eta`, which files do not have, are the request's if they are not None. strength:
    the part of the steps that are made of an image that starts from a picture, 0 to 1; the
    scheduler's `begin` is then within its table, as that of diffusers' pipelines is.
    Raises InvalidRequest, a ValueError, for a name, a step count or a value that is not served.
    """
    found = entry(resolve(name, config))
    scheduler = found.implementation
    asked = {**_of_siblings(found, config), **found.options}
    if timestep_spacing is not None:
        if "timestep_spacing" not in scheduler.OPTIONS:
            allowed = f"none with scheduler {found.name}, whose timesteps are fixed"
            raise InvalidRequest("timestep_spacing", timestep_spacing, allowed)
        asked["timestep_spacing"] = timestep_spacing
    if "eta" in scheduler.OPTIONS:
        asked["eta"] = scheduler.OPTIONS["eta"].default if eta is None else eta
    elif eta is not None:
        having = (one.name for one in TABLE if "eta" in one.implementation.OPTIONS)
        raise InvalidRequest("eta", eta, f"none, but with scheduler {' or '.join(having)}")
    values = read({**config, **asked}, scheduler.OPTIONS, found.name)
    most = values["num_train_timesteps"]
    if type(num_inference_steps) is not int or not 1 <= num_inference_steps <= most:
        raise InvalidRequest("num_inference_steps", num_inference_steps, f"1 to {most}")
    steps = num_inference_steps if strength is None else steps_made(num_inference_steps, strength)
    begin = (num_inference_steps - steps) * scheduler.CALLS_A_STEP
    made = scheduler({**values, "begin": begin}, num_inference_steps)
    if begin >= len(made.timesteps):
        allowed = f"more: scheduler {found.name} has {len(made.timesteps)} calls in all"
        raise InvalidRequest("strength", strength, allowed)
    made.begin = begin
    return made


def steps_made(num_inference_steps: int, strength: float) -> int:
    """How many of the steps are made with that strength: diffusers' get_timesteps.

    Raises InvalidRequest if that is none.
    """
    steps = min(int(num_inference_steps * strength), num_inference_steps)
    if steps < 1:
        allowed = f"enough for a step: {num_inference_steps} steps times strength, rounded down"
        raise InvalidRequest("strength", strength, f"{allowed}, must be at least 1")
    return steps


def _of_siblings(found: Entry, config: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of what `config` has of other entries of the same class."""
    siblings = (one for one in TABLE if one.diffusers == found.diffusers)
    return {
        key: found.implementation.OPTIONS[key].default
        for one in siblings
        for key, value in one.options.items()
        if config.get(key) == value
    }
