"""Whether a Python can run the embedded Triton's models: `python -m triptych.server.python`."""

from __future__ import annotations

import ctypes
import platform
import sys
import sysconfig
from importlib import util
from pathlib import Path

from triptych.server import Unfit

GLIBC = (2, 35)
"""What nvidia-pytriton's binaries are built for."""

LOCKED = ((3, 11), (3, 12))
"""The versions that requirements/lock.txt is for."""


def name() -> str:
    """This Python's version as it stands in the names of libraries: "3.11"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def shared_library() -> Path | None:
    """The path of this Python's shared library, None if the system's loader knows where it is.

    The processes of Triton's Python models are linked to it. Raises Unfit if there is none.
    """
    library = f"libpython{name()}.so.1.0"
    config = sysconfig.get_config_vars("LIBDIR", "MULTIARCH", "LIBPL")
    libdir, multiarch, libpl = (value or "" for value in config)
    folders = (Path(sys.base_prefix, "lib"), Path(libdir), Path(libdir, multiarch), Path(libpl))
    for folder in folders:
        if (folder / library).is_file():
            return folder / library
    try:
        ctypes.CDLL(library)
    except OSError:
        fix = f"apt-get install libpython{name()}, or use a Python built with --enable-shared"
        raise Unfit(f"Python {name()} has no {library}: {fix}") from None
    return None


def check() -> None:
    """Raise Unfit unless this Python will do for `make setup`."""
    if sys.version_info[:2] not in LOCKED:
        raise Unfit(f"Python {name()}: Python 3.11 or 3.12 is needed")
    kind, version = platform.libc_ver()
    if kind != "glibc" or tuple(map(int, version.split("."))) < GLIBC:
        needed = ".".join(map(str, GLIBC))
        raise Unfit(f"{kind or 'no glibc'} {version}: Triton needs glibc {needed} (Ubuntu 22.04)")
    if not (util.find_spec("ensurepip") or util.find_spec("virtualenv")):
        fix = f"apt-get install python{name()}-venv, or pip install virtualenv"
        raise Unfit(f"Python {name()} makes no environments: {fix}")
    shared_library()


if __name__ == "__main__":
    try:
        check()
    except Unfit as reason:
        sys.exit(str(reason))
