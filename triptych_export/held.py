"""One export at a time in a repository."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from triptych_export.errors import ExportError


@contextlib.contextmanager
def held(repository: Path) -> Iterator[None]:
    """`repository`, made where it is missing, is this export's alone; if it stays empty, it goes.

    ExportError if another export has it. The lock is the folder's own: it leaves no file behind.
    """
    missing = [path for path in (repository, *repository.parents) if not path.exists()]
    repository.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(repository, os.O_RDONLY)
    try:
        _lock(descriptor, repository)
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # somebody else has put something there
                path.rmdir()
        os.close(descriptor)


def _lock(descriptor: int, repository: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ExportError(
            f"{repository}: another export is writing to it: wait until it has ended"
        ) from None
