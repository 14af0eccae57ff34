"""What is said where a disk has no room left."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from triptych_export.errors import ExportError

FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))


@contextlib.contextmanager
def room_in(folder: Path, advice: str) -> Iterator[None]:
    """For what writes to `folder`: where there is no room an ExportError says so, with `advice`.

    Libraries tell it in errors of their own, or as the cause of one.
    """
    try:
        yield
    except Exception as error:
        found: BaseException | None = error
        while found is not None:
            for problem in FULL:
                if problem in str(found):
                    raise ExportError(f"{folder}: {problem}: {advice}") from error
            found = found.__cause__ or found.__context__
        raise
