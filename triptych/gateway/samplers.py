"""The WebUI's names of samplers and of their schedules, as schedulers of Triptych."""

from __future__ import annotations

from triptych.gateway.errors import Problem
from triptych.schedulers import TABLE, Entry

_SPREAD = {entry.schedule.lower(): entry.schedule for entry in TABLE if entry.schedule}
SCHEDULES = {"automatic": "Automatic", "uniform": "Uniform", **_SPREAD}
_PLAIN = ("uniform", "normal")
_NEARLY_PLAIN = ("simple", "sgm_uniform", "sgmuniform", "ddim")
_BY_ITSELF = {
    "DPM++ 2M": "karras",
    "DPM++ 2M SDE": "exponential",
    "DPM2": "karras",
    "DPM2 a": "karras",
}
"""What Automatic means, since the WebUI's version 1.9, for samplers that are not plain then."""

LABELS = {entry.name: entry.label for entry in TABLE}
_BY_OWN_NAME = {
    name.lower(): entry for entry in reversed(TABLE) for name in (entry.name, entry.diffusers)
}
_BY_SAMPLER = {
    (entry.sampler.lower(), (entry.schedule or "").lower()): entry for entry in reversed(TABLE)
}


def scheduler_of(sampler: str | None, schedule: str | None) -> tuple[str | None, list[str]]:
    """The name of the scheduler that the WebUI's `sampler_name` and `scheduler` mean, and warnings.

    The name is None where the request leaves the choice to the model; a class name of diffusers,
    without a schedule, stays one, for the server to read it with the model's file. Names may be
    in any case, and the schedule may end the sampler's name, as before the WebUI's version 1.9. A
    schedule that is not known is taken as Automatic, as the WebUI does, and said in a warning.
    Raises Problem 400 for a sampler that is not there, and for Karras, Exponential or Beta where
    the sampler does not have it.
    """
    asked = (schedule or "automatic").lower().replace(" ", "_")
    warnings = []
    if asked not in SCHEDULES and asked not in _PLAIN:
        warnings.append(f"scheduler: {schedule!r} is not known here; the sampler's own is used")
    if sampler is None:
        if asked in _SPREAD:
            allowed = f"{_SPREAD[asked]} together with sampler_name"
            raise Problem(400, f"scheduler: got {schedule!r}; allowed: {allowed}", "scheduler")
        return None, warnings
    found = _entry(sampler, asked)
    is_class = sampler.lower() == found.diffusers.lower() and asked not in (*_SPREAD, *_PLAIN)
    return found.diffusers if is_class else found.name, warnings


def _entry(sampler: str, schedule: str) -> Entry:
    name = sampler.lower()
    for ending in _SPREAD:
        if name.endswith(f" {ending}"):
            name, schedule = name.removesuffix(f" {ending}"), ending
    entry = _BY_OWN_NAME.get(name) or _BY_SAMPLER.get((name, ""))
    plain = schedule in (*_PLAIN, *_NEARLY_PLAIN)
    if entry and schedule not in _SPREAD and not plain and name == entry.sampler.lower():
        schedule = _BY_ITSELF.get(entry.sampler, schedule)
    if entry and schedule in _SPREAD:
        entry = _BY_SAMPLER.get((entry.sampler.lower(), schedule))
    if entry is None:
        plain_labels = ", ".join(one.label for one in TABLE if not one.schedule)
        spread = dict.fromkeys(one.sampler for one in TABLE if one.schedule)
        allowed = f"{plain_labels}; {', '.join(_SPREAD.values())} with {', '.join(spread)} alone"
        raise Problem(400, f"sampler_name: got {sampler!r}; allowed: {allowed}", "sampler_name")
    return entry
