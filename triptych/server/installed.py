"""Servers that the machine has on its PATH."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def find(name: str) -> Path | None:
    """The first executable `name` on PATH that is not this project's own console script."""
    for folder in os.get_exec_path():
        path = Path(folder) / name
        if path.is_file() and os.access(path, os.X_OK) and not _ours(path):
            return path
    return None


def backends(server: Path) -> Path:
    """The backends of a `tritonserver`: beside its folder, as NVIDIA's images have them."""
    beside = server.resolve().parents[1] / "backends"
    return beside if beside.is_dir() else Path("/opt/tritonserver/backends")


def keeps_names_apart(server: Path) -> bool:
    """Whether Python models of several backends may be given one prefix for shared memory.

    They may with Triton 24.10 (2.51); 23.10 (2.39) numbers them for each backend from 1.
    """
    version = server.resolve().parents[1] / "TRITON_VERSION"
    if not version.is_file():
        return False
    return tuple(map(int, version.read_text().split(".")[:2])) >= (2, 51)


def knows(server: Path, flag: str) -> bool:
    """Whether the server's own --help has `flag`."""
    shown = subprocess.run([str(server), "--help"], capture_output=True, text=True, check=False)
    return flag in shown.stdout + shown.stderr


def _ours(path: Path) -> bool:
    with path.open("rb") as file:
        return b"triptych.launcher" in file.read(4096)
