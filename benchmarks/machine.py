"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from importlib import metadata
from pathlib import Path

import numpy as np


def hardware() -> str:
    """Processor, cores that this process may use, memory, kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    name = ", ".join(sorted(names)) or platform.machine()
    return f"{name}, {cores} cores, {gigabytes:.0f} GiB, Linux {platform.release()}"


def gpu() -> str:
    """Of each GPU that programs see its name, driver and memory, a line each; or "no GPU".

    With ", MPS" where NVIDIA's Multi-Process Service runs, by which processes work on it at once.
    """
    try:
        lines = _asked("name,driver_version,memory.total").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"
    return "\n".join(f"{line}, MPS" for line in lines) if _mps() else "\n".join(lines)


def gpus() -> int:
    """How many GPUs there are; one where there is none, for the processor in its place."""
    return len(gpu().splitlines())


def used_memory() -> float:
    """MiB of the GPUs that programs see that are in use, by whatever program."""
    return float(sum(map(int, _asked("memory.used").split())))


def _mps() -> bool:
    """Whether the daemon answers that CUDA_MPS_PIPE_DIRECTORY names, else the usual one."""
    command = ["nvidia-cuda-mps-control"]
    try:
        asked = subprocess.run(command, input="get_server_list\n", capture_output=True, text=True)
    except OSError:
        return False
    return asked.returncode == 0


def _asked(fields: str) -> str:
    """What nvidia-smi says of the GPUs that CUDA_VISIBLE_DEVICES names, else of all."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    command += [f"--id={seen}"] if seen else []
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def versions(*packages: str) -> str:
    """Python's and the packages' versions, as installed here; "no" for one that is not."""
    installed: dict[str, str] = {}
    for one in metadata.distributions():  # in the order in which Python looks for modules
        installed.setdefault(one.metadata["Name"].lower(), one.version)
    named = [
        f"{package} {installed[package]}" if package in installed else f"no {package}"
        for package in packages
    ]
    return ", ".join([f"Python {platform.python_version()}", *named])


def processor_seconds() -> tuple[float, float, float]:
    """Seconds that have passed, and that all processes and ours have spent on all cores.

    Ours are this one and its children, and theirs, that have ended.
    """
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    _, _, _, idle, waiting, *_ = ticks
    everybody = (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), everybody, sum(one.ru_utime + one.ru_stime for one in spent)


def others(before: tuple[float, float, float]) -> float:
    """The part of the cores that other processes took since then, ours having ended."""
    seconds, everybody, ours = np.subtract(processor_seconds(), before)
    return (everybody - ours) / (seconds * os.cpu_count())
