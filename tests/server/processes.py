"""What a running server takes of the machine, process by process."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


class Processes:
    """The processes of a server: the launcher, Triton, and one for each Python model."""

    def __init__(self, launcher: int) -> None:
        self.launcher = launcher

    def all(self) -> dict[str, int]:
        """Process ids by name: launcher, triton, and the models' names."""
        found = {"launcher": self.launcher}
        for pid in descendants(self.launcher):
            words = command_line(pid).split("\0")
            if words[0].endswith("triton_python_backend_stub"):
                found[Path(words[1]).parents[1].name] = pid
            elif words[0].endswith("tritonserver"):
                found["triton"] = pid
        return found

    def kill(self) -> None:
        """Kill all at once, as the end of the machine would."""
        found = self.all()
        for pid in [found.pop("launcher"), found.pop("triton"), *found.values()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Each process's threads and open files."""
        return {name: (threads(pid), files(pid)) for name, pid in self.all().items()}

    def grown(self, before: dict[str, tuple[int, int]], slack: int) -> dict[str, tuple]:
        """Processes that are new or have over `slack` threads or files more than they had."""
        return {
            name: (before.get(name), now)
            for name, now in self.counts().items()
            if name not in before or any(a > b + slack for a, b in zip(now, before[name]))
        }

    def shared_memory(self) -> tuple[int, int]:
        """Regions in /dev/shm that the processes map, and their bytes."""
        regions = {}
        for pid in self.all().values():
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                path = line.partition("/dev/shm/")[2]
                if path:
                    regions[path] = SHARED_MEMORY / path.partition(" (deleted)")[0]
        return len(regions), sum(p.stat().st_size for p in regions.values() if p.exists())


def command_line(pid: int) -> str:
    """The words of its command, each ended by a zero; empty where it has ended meanwhile."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return ""


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    """Bytes of the process's own memory that are resident, without what it maps of files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory of its own")


def descendants(pid: int) -> list[int]:
    """The processes that it has started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found
