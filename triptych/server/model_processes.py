"""The processes in which a Triton runs its Python models, watched from outside.

Since 24.06 Triton does not notice when one of them dies: the server stays ready, requests that the
process held are never answered, and others fail.
"""

from __future__ import annotations

import signal
from pathlib import Path

_STUB = "triton_python_backend_stub"


class ModelProcesses:
    """The Python models' processes among the children of the process `parent`."""

    SEARCHES = 80
    """So many first looks search for new processes, then one in `BETWEEN`: a search takes 5 to
    15 ms, as a server has hundreds of threads, each with children of its own."""
    BETWEEN = 20

    def __init__(self, parent: int) -> None:
        self._tasks = Path("/proc", str(parent), "task")
        self._looks = 0
        self._found: list[int] = []
        self._models: dict[int, str] = {}
        self._dead: set[int] = set()

    def dead(self) -> str | None:
        """What died since the last look but one, "MODEL (SIGKILL)"; None while all live.

        One that Triton ends itself, when it unloads a model, is dead for a moment only.
        """
        dead = set()
        if self._looks < self.SEARCHES or self._looks % self.BETWEEN == 0:
            self._found = self._children()
        self._looks += 1
        for pid in self._found:
            state, code = _state(pid)
            if state == "Z":
                dead.add(pid)
                if pid in self._dead:
                    return f"{self._models.get(pid, 'unknown')} ({_ending(code)})"
            elif pid not in self._models:
                model = _model(pid)
                if model:
                    self._models[pid] = model
        self._dead = dead & set(self._models)
        return None

    def _children(self) -> list[int]:
        found = []
        for task in self._tasks.glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:  # a thread that has ended
                continue
        return found


def _state(pid: int) -> tuple[str, int]:
    """The process's state as in /proc, and how it ended if it has."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[-1])


def _model(pid: int) -> str | None:
    """The model that a process is for; its command line names MODEL/VERSION/model.py."""
    try:
        words = (
            Path("/proc", str(pid), "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        )
    except OSError:
        return None
    if not words[0].endswith(_STUB) or len(words) < 2:
        return None
    return Path(words[1]).parent.parent.name


def _ending(code: int) -> str:
    if code & 0x7F:
        return signal.Signals(code & 0x7F).name
    return f"exit code {code >> 8}"
