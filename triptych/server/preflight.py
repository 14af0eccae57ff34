"""What would make the server fail, seen before it starts and said in one line."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

from triptych import names
from triptych.ipc import shared_memory
from triptych.server import Unfit, flags, places

NEEDED_SHARED_MEMORY = 32 * 2**20
"""Bytes that the Python models' processes take with a few images in flight."""

MORE_SHARED_MEMORY = 8 * 2**20
"""Bytes that the processes of each further model take."""

PORTS = {"http": "8000", "grpc": "8001", "metrics": "8002"}

TYPED = "TRIPTYCH_TYPED"
"""The environment variable by which make says what was typed there: it takes flags in FLAGS."""


def check_repository(arguments: list[str]) -> None:
    """Raise Unfit unless every repository that `arguments` name has models that Triton can load."""
    named = _repositories(arguments)
    if not named:
        raise Unfit("no model repository: pass --model-repository=model_repository")
    for repository in named:
        if "://" in repository:
            continue
        models = served(repository)
        in_model = Path(repository).glob(f"*/{names.UNFINISHED}")
        if Path(repository, names.ADDED).exists() or any(in_model):
            raise Unfit(
                f"{repository}: an export puts models there, or was killed while it did: wait"
                " until it has ended, or export again, which first puts back what was there"
            )
        if not models:
            raise Unfit(f"{repository} holds no MODEL/config.pbtxt: see --model-repository")
        for model in models:
            if not places.is_plain(model):
                raise Unfit(
                    f"{repository}: model {model!r}: allowed: a name in ASCII, without blanks"
                )


def served(repository: str) -> list[str]:
    """What a local repository holds for Triton to serve: stages, ensembles and streams."""
    return sorted(path.parent.name for path in Path(repository).glob("*/config.pbtxt"))


def _repositories(arguments: list[str]) -> list[str]:
    return [value for flag in places.REPOSITORIES for value in flags.values(arguments, flag)]


def check_ports(arguments: list[str], host: str) -> None:
    """Raise Unfit if a port that the server would listen on is taken, or is named twice.

    `host`: the address of those that `arguments` give none.
    """
    check_ports_differ(arguments)
    for name, port in _ports(arguments).items():
        if flags.value(arguments, f"--reuse-{name}-port", "false") in ("true", "1"):
            continue
        address = flags.value(arguments, f"--{name}-address", host)
        check_port(name, address, port, f"--{name}-port", f"--{name}-address")


def check_port(
    name: str, address: str, port: int, port_flag: str, address_flag: str | None = None
) -> None:
    """Raise Unfit, which names what gives it, unless `port` of `address` can be listened on.

    `address_flag`: None where the address is always the same.
    """
    listen(name, address, port, port_flag, address_flag).close()


def listen(
    name: str, address: str, port: int, port_flag: str, address_flag: str | None = None
) -> socket.socket:
    """A socket that listens there; Unfit as of `check_port`."""
    try:
        return socket.create_server((address, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = f"stop what uses it, or {_giving(port_flag)} with a free port"
            raise Unfit(f"port {port} ({name}) is in use on {address}: {advice}") from None
        given = f"{address_flag}={address}, port {port}"
        told = given if address_flag else f"{port_flag}={port}"
        raise Unfit(f"{told}: {error.strerror}") from None


def _giving(flag: str) -> str:
    typed = os.environ.get(TYPED)
    return f'type {typed} FLAGS="{flag}=N"' if typed else f"pass {flag}=N"


def check_ports_differ(arguments: list[str]) -> None:
    """Raise Unfit if two of the server's ports are the same number, or one is no number."""
    owners: dict[int, str] = {}
    for name, port in _ports(arguments).items():
        other = owners.setdefault(port, name)
        if other != name:
            raise Unfit(f"--{other}-port and --{name}-port are both {port}: give each its own")


def _ports(arguments: list[str]) -> dict[str, int]:
    """The ports that the server would listen on; Unfit for what is none."""
    found = {}
    for name, default in PORTS.items():
        if flags.value(arguments, f"--allow-{name}", "true") in ("false", "0"):
            continue
        found[name] = port_of(arguments, f"--{name}-port", default)
    return found


def port_of(arguments: list[str], flag: str, default: str) -> int:
    """The port that `flag` gives; Unfit for what is none."""
    port = flags.value(arguments, flag, default)
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise Unfit(f"{flag}={port}: allowed: 0 to 65535")
    return int(port)


def check_shared_memory(arguments: list[str]) -> None:
    """Raise Unfit if /dev/shm has no room for the Python models of the named repositories."""
    free = shutil.disk_usage(shared_memory.FOLDER).free
    models = [name for path in _repositories(arguments) for name in names.models(served(path))]
    needed = NEEDED_SHARED_MEMORY + MORE_SHARED_MEMORY * max(0, len(models) - 1)
    if free < needed:
        raise Unfit(
            f"/dev/shm has {free // 2**20} MiB free of the {needed // 2**20} needed:"
            " in Docker pass --shm-size=256m, else free some or mount it larger"
        )
