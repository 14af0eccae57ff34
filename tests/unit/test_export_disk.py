"""A disk without room is told by its folder, whoever finds it out."""

import errno
import os

import pytest

from triptych_export.disk import room_in
from triptych_export.errors import ExportError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class OfAnotherLibrary(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/there/file"),
        OfAnotherLibrary("Error while serializing: No space left on device (os error 28)"),
        ExportError("it cannot be downloaded"),
    ],
)
def test_the_folder_without_room_is_named(tmp_path, error):
    if isinstance(error, ExportError):
        error.__cause__ = FULL
    said = rf"{tmp_path}: (No space left on device|Disk quota exceeded): make some there"
    with pytest.raises(ExportError, match=said), room_in(tmp_path, "make some there"):
        raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no"), ExportError("other"), KeyboardInterrupt()]
)
def test_other_errors_stay_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as found, room_in(tmp_path, "make some there"):
        raise error
    assert found.value is error
