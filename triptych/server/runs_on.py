"""What runs the networks, in one line out of what Triton's log says of each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux's, and that of Linux inside Windows
_LINE = re.compile(r"([\w.-]+): runs on ([^\"\n]+)")
_WITHOUT_A_GPU = ("no Tensorrt:", "no CUDA:")


def has_gpu() -> bool:
    """Whether this machine has NVIDIA's driver."""
    return any(map(os.path.exists, DRIVERS))


def find(line: str) -> tuple[str, str] | None:
    """The network that a line of the log is about, and what runs it; None for any other line."""
    found = _LINE.search(line)
    return (found[1], found[2]) if found else None


def summary(found: Iterable[tuple[str, str]]) -> str:
    """One line: the networks by what runs them, and where there is a GPU why it does not."""
    by_engine: dict[str, list[str]] = {}
    keep_all = has_gpu()
    for network, engine in found:
        names = by_engine.setdefault(engine if keep_all else _of_interest(engine), [])
        if network not in names:
            names.append(network)
    if not by_engine:
        return "the log does not say what runs the networks"
    parts = []
    for engine, names in by_engine.items():
        verb = "run" if len(names) > 1 else "runs"
        parts.append(f"{', '.join(sorted(names))} {verb} on {engine}")
    return "; ".join(parts).replace("ExecutionProvider", "")


def _of_interest(engine: str) -> str:
    """Without why no GPU runs it."""
    name, _, rest = engine.partition(" (")
    reasons, _, more = rest.rpartition(")")
    kept = [one for one in reasons.split("; ") if one and not one.startswith(_WITHOUT_A_GPU)]
    return name + (f" ({'; '.join(kept)})" if kept else "") + more
