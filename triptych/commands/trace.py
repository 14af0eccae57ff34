"""Triton's trace of a request as a Chrome trace, for chrome://tracing and https://ui.perfetto.dev.

Triton's own file (`--trace-config=triton,file=...`, level TIMESTAMPS) is a list of parts of traces:
a part has the trace's `id` and either its model and, for a stage of an ensemble, the `parent_id`,
or `timestamps` of names and nanoseconds. A Chrome trace has complete events, `ph` "X", with begin
and duration in microseconds ("Trace Event Format").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PHASES = (
    ("queue", "QUEUE_START", "COMPUTE_START"),
    ("input", "COMPUTE_START", "COMPUTE_INPUT_END"),
    ("compute", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START"),
    ("output", "COMPUTE_OUTPUT_START", "COMPUTE_END"),
)
LATER = "answered later"
"""The phase of a stage whose `execute` returns at once: until the stages start that need it."""


@dataclass
class _Request:
    model: str = ""
    parent: int | None = None
    at: dict[str, int] = field(default_factory=dict)


def chrome(parts: Sequence[Mapping[str, Any]], model: str) -> dict[str, Any]:
    """The Chrome trace of the last request of the ensemble `model`; ValueError if there is none."""
    requests = _requests(parts)
    whole = [number for number, one in requests.items() if one.model == model and _is_whole(one)]
    if not whole:
        raise ValueError(f"the trace has no request of {model}")
    number = max(whole)
    stages = [one for one in requests.values() if one.parent == number and _is_whole(one)]
    stages.sort(key=lambda one: one.at["REQUEST_START"])
    first = min(requests[number].at["REQUEST_START"], *(one.at["REQUEST_START"] for one in stages))
    events = []
    for row, one in enumerate([requests[number], *stages]):
        events.append({"name": "thread_name", "ph": "M", "pid": 0, "tid": row})
        events[-1]["args"] = {"name": one.model}
        ends = _answered(one, stages) if row else one.at["REQUEST_END"]
        events.append(_event(row, one.model, one.at["REQUEST_START"], ends, first))
        for name, begin, end in _PHASES:
            if begin in one.at and end in one.at:
                events.append(_event(row, name, one.at[begin], one.at[end], first))
        if ends > one.at["REQUEST_END"]:
            events.append(_event(row, LATER, one.at["REQUEST_END"], ends, first))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _requests(parts: Sequence[Mapping[str, Any]]) -> dict[int, _Request]:
    requests: dict[int, _Request] = {}
    for part in parts:
        one = requests.setdefault(part["id"], _Request())
        if "model_name" in part:
            one.model, one.parent = part["model_name"], part.get("parent_id")
        for stamp in part.get("timestamps", ()):
            one.at[stamp["name"]] = stamp["ns"]
    return requests


def _is_whole(one: _Request) -> bool:
    return "REQUEST_START" in one.at and "REQUEST_END" in one.at


def _answered(one: _Request, stages: Sequence[_Request]) -> int:
    """When the stage's answer was there, at the latest: its own end, or the next stage's start.

    Stages that ran beside it, as the text encoder's two, began before its end.
    """
    end = one.at["REQUEST_END"]
    overlaps = [
        other for other in stages if one.at["REQUEST_START"] < other.at["REQUEST_START"] < end
    ]
    later = [other.at["REQUEST_START"] for other in stages if other.at["REQUEST_START"] >= end]
    return min(later) if later and not overlaps else end


def _event(row: int, name: str, begin: int, end: int, first: int) -> dict[str, Any]:
    """Nanoseconds to the event's microseconds, counted from `first`."""
    times = {"ts": (begin - first) / 1000, "dur": (end - begin) / 1000}
    return {"name": name, "ph": "X", "pid": 0, "tid": row, **times}
