"""The WebUI's names of samplers and of their schedules, as schedulers of Triptych."""

from __future__ import annotations

from triptych.gateway.errors import Problem
from triptych.schedulers import TABLE, Entry

SCHEDULES = {"automatic": "Automatic", "karras": "Karras"}
_PLAIN = ("uniform", "normal")
_NEARLY_PLAIN = ("simple", "sgm_uniform", "sgmuniform", "ddim", "beta")
_KARRAS_BY_ITSELF = ("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a")
"""The samplers for which Automatic means Karras, since the WebUI's version 1.9."""

LABELS = {entry.name: entry.label for entry in TABLE}
_BY_OWN_NAME = {
    name.lower(): entry for entry in reversed(TABLE) for name in (entry.name, entry.diffusers)
}
_BY_SAMPLER = {(entry.sampler.lower(), entry.karras): entry for entry in reversed(TABLE)}


def scheduler_of(sampler: str | None, schedule: str | None) -> tuple[str | None, list[str]]:
    """The name of the scheduler that the WebUI's `sampler_name` and `scheduler` mean, and warnings.

    The name is None where the request leaves the choice to the model. In any case of letters; the
    schedule may stand at the end of the sampler's name, as before the WebUI's version 1.9. A
    schedule that is not known is taken as Automatic, as the WebUI does, and said in a warning.
    Raises Problem 400 for a sampler that is not there, and for Karras where the sampler has none.
    """
    asked = (schedule or "automatic").lower().replace(" ", "_")
    warnings = []
    if asked not in SCHEDULES and asked not in _PLAIN:
        warnings.append(f"scheduler: {schedule!r} is not known here; the sampler's own is used")
    if sampler is None:
        if asked == "karras":
            allowed = "Karras together with sampler_name"
            raise Problem(400, f"scheduler: got {schedule!r}; allowed: {allowed}", "scheduler")
        return None, warnings
    return _entry(sampler, asked).name, warnings


def _entry(sampler: str, schedule: str) -> Entry:
    name = sampler.lower()
    if name.endswith(" karras"):
        name, schedule = name.removesuffix(" karras"), "karras"
    entry = _BY_OWN_NAME.get(name) or _BY_SAMPLER.get((name, False))
    karras = _BY_SAMPLER.get((entry.sampler.lower(), True)) if entry else None
    if entry is None or (schedule == "karras" and karras is None):
        with_karras = ", ".join(one.sampler for one in TABLE if one.karras)
        allowed = f"{', '.join(LABELS.values())}; the schedule Karras with {with_karras} alone"
        raise Problem(400, f"sampler_name: got {sampler!r}; allowed: {allowed}", "sampler_name")
    plain = schedule in (*_PLAIN, *_NEARLY_PLAIN)
    by_itself = entry.sampler in _KARRAS_BY_ITSELF and name == entry.sampler.lower() and not plain
    return karras if karras and (schedule == "karras" or by_itself) else entry
