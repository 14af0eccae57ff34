"""The shared memory of one server's Python models: named so that none of it is ever left behind."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path

FOLDER = Path("/dev/shm")
PREFIX_VARIABLE = "TRIPTYCH_SHARED_MEMORY_PREFIX"
"""In the environment of the models: how the names begin that go with the run."""
_LOCK = "lock"


class Run:
    """One run of a server: a name of its own for shared memory, and a temporary folder.

    Every process of the run holds the lock file open, so that its regions are known to be
    nobody's as soon as the last one is dead, however it died.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(4)
        self.prefix = f"triptych_{self.token}_"
        self.folder = _folder(self.token)
        self.lock = _lock(FOLDER / (self.prefix + _LOCK))
        self.folder.mkdir(mode=0o700)

    def remove(self) -> None:
        """Take away all that the run's processes, which have ended, may have left."""
        _remove(self.token)
        os.close(self.lock)


def remove_dead() -> None:
    """Take away what earlier runs left that were killed."""
    for lock in FOLDER.glob(f"triptych_*_{_LOCK}"):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:  # another user's, or gone meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            _remove(lock.name.split("_")[1])
        finally:
            os.close(descriptor)


def _lock(path: Path) -> int:
    """A new lock file, held: once more if another start took it for a dead run's meanwhile."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return descriptor
        os.close(descriptor)


def _folder(token: str) -> Path:
    return Path(tempfile.gettempdir()) / f"triptych-{token}"


def _remove(token: str) -> None:
    """The lock file goes last: what an interruption leaves is found again."""
    names = sorted(FOLDER.glob(f"triptych_{token}_*"), key=lambda path: path.name.endswith(_LOCK))
    shutil.rmtree(_folder(token), ignore_errors=True)
    for path in names:
        path.unlink(missing_ok=True)
