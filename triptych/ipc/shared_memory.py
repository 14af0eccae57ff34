"""The shared memory of one server's Python models, named so that none of it is left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from pathlib import Path

FOLDER = Path("/dev/shm")
PREFIX_VARIABLE = "TRIPTYCH_SHARED_MEMORY_PREFIX"
"""In the environment of the models: how the names begin that go with the run."""
_LOCK = re.compile("triptych_([0-9a-f]{8})_lock")


class Run:
    """One run of a server: a prefix for its names in shared memory, and a temporary folder.

    Every process of the run holds the lock file `{prefix}lock` open. Its lock becomes free when the
    last of them has died, however it died; then whatever has the prefix belongs to nobody.
    """

    def __init__(self, temporary: Path) -> None:
        """`temporary`: where the run's own folder is made."""
        self.token = secrets.token_hex(4)
        self.prefix = _prefix(self.token)
        self.folder = _folder(temporary, self.token)
        self.lock = _lock(FOLDER / f"{self.prefix}lock")
        self.folder.mkdir(mode=0o700)

    def remove(self) -> None:
        """Delete the folder and the shared memory of the run, whose processes have ended."""
        _remove(self.folder.parent, self.token)
        os.close(self.lock)


def remove_dead(temporary: Path) -> None:
    """Delete what earlier runs left behind that were killed, their folders in `temporary` too."""
    for name in os.listdir(FOLDER):
        # Anybody may put files there: only the very names that a `Run` takes are looked at.
        lock = _LOCK.fullmatch(name)
        if lock is None:
            continue
        try:
            descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # another user's, or gone meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            _remove(temporary, lock[1])
        finally:
            os.close(descriptor)


def remove(prefix: str) -> None:
    """Delete all files of shared memory whose names begin with `prefix`, a lock file last."""
    # Last, so that what an interruption leaves is found again.
    names = sorted(os.listdir(FOLDER), key=lambda name: _LOCK.fullmatch(name) is not None)
    for name in names:
        if name.startswith(prefix):
            with contextlib.suppress(OSError):  # another user's, or gone meanwhile
                (FOLDER / name).unlink()


def _lock(path: Path) -> int:
    """The descriptor of a new lock file, locked.

    Another server's start may take it for a dead run's and delete it before it is locked; then it
    is made once more.
    """
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return descriptor
        os.close(descriptor)


def _prefix(token: str) -> str:
    return f"triptych_{token}_"


def _folder(temporary: Path, token: str) -> Path:
    return temporary / f"triptych-{token}"


def _remove(temporary: Path, token: str) -> None:
    shutil.rmtree(_folder(temporary, token), ignore_errors=True)
    remove(_prefix(token))
