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


def knows(server: Path, flag: str) -> bool:
    """Whether the server's own --help has `flag`."""
    shown = subprocess.run([str(server), "--help"], capture_output=True, text=True, check=False)
    return flag in shown.stdout + shown.stderr


def _ours(path: Path) -> bool:
    with path.open("rb") as file:
        return b"triptych.launcher" in file.read(4096)
