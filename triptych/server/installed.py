"""Servers that the machine has on its PATH."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from triptych.server import Unfit


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
    return flag in _help([str(server)], None)


def check_flags(command: list[str], env: dict[str, str]) -> None:
    """Raise Unfit with the server's own words if it refuses one of its flags.

    `command` is the server and its arguments. Triton itself would print all of its usage first.
    """
    usage = set(_help(command[:1], env).splitlines())
    # With --help at their end the flags are read, up to the first wrong one, and nothing starts.
    shown = _help(command, env).splitlines()
    reason = " ".join(line.strip() for line in shown if line not in usage)
    if "option" in reason:  # every refusal has the word; a wrapper may show other lines
        raise Unfit(reason.replace(f"{command[0]}: ", ""))


def _help(command: list[str], env: dict[str, str] | None) -> str:
    """What a server writes to its standard error, its output too, when --help is its last flag."""
    run = subprocess.run(
        [*command, "--help"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the launcher
        check=False,
    )
    return run.stdout.decode(errors="replace")


def _ours(path: Path) -> bool:
    with path.open("rb") as file:
        return b"triptych.launcher" in file.read(4096)
