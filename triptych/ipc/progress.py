"""How far an image is, from the process of unet_loop to that of its model's stream.

A call of Triton every step would cost more than the step's own bookkeeping. So the process that
streams makes a small file in shared memory and passes its name as the request's id; the loop writes
the step and previews to it, and reads from it whether to stop.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triptych.denoise.denoising import Denoising
from triptych.denoise.preview import Preview
from triptych.errors import NotFinite
from triptych.ipc.shared_memory import FOLDER, PREFIX_VARIABLE, remove

_OWNER = struct.Struct("<HHH")  # whether to stop, whether a stage has the request, preview_every
_BEGUN_AT = 2
_STEP = struct.Struct("<II")  # calls made, calls in all
_SIZE = struct.Struct("<IHH")  # the call that the preview is of, its height and width
_END = struct.Struct("<I")  # that call again: what lies between was written as a whole
_STEP_AT = _OWNER.size
_SIZE_AT = _STEP_AT + _STEP.size
_PIXELS_AT = _SIZE_AT + _SIZE.size
_MOST_PIXELS = 16 * 1024  # a preview of more is thinned out
_FILE = _PIXELS_AT + 3 * _MOST_PIXELS + _END.size


class Progress(NamedTuple):
    """`step` of `total` calls of the UNet are made; `preview` is a new uint8 [h, w, 3], or None."""

    step: int
    total: int
    preview: np.ndarray | None


class Record:
    """One image's file on the streaming side; `close` removes it.

    `token` is the id for the image's request.
    """

    def __init__(self, stream: str, preview_every: int) -> None:
        """`preview_every`: steps from one preview to the next, 0 for none.

        `stream`: the model that streams, `sd_ensemble_stream` for instance.

        Raises OSError if shared memory has no room.
        """
        self.token = secrets.token_hex(16)
        self._path = _path(stream, self.token)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        try:
            os.posix_fallocate(self._file, 0, _FILE)
            os.pwrite(self._file, _OWNER.pack(0, 0, preview_every), 0)
        except OSError:
            self.close()
            raise
        self._read = 0
        self._preview_read = 0

    def read(self) -> Progress | None:
        """The step, and the preview if there is a new one; None if no step was made since."""
        step, total = _STEP.unpack(os.pread(self._file, _STEP.size, _STEP_AT))
        if step == self._read:
            return None
        self._read = step
        return Progress(step, total, self._preview())

    def _preview(self) -> np.ndarray | None:
        block = os.pread(self._file, _FILE - _SIZE_AT, _SIZE_AT)
        step, height, width = _SIZE.unpack_from(block)
        if step == self._preview_read:
            return None
        end = _SIZE.size + 3 * height * width
        if _END.unpack_from(block, end) != (step,):
            return None
        self._preview_read = step
        pixels = np.frombuffer(block, np.uint8, 3 * height * width, _SIZE.size)
        return pixels.reshape(height, width, 3)

    def begun(self) -> bool:
        """Whether a stage has told that it has the image's request, by `begin`."""
        return os.pread(self._file, 1, _BEGUN_AT) == b"\1"

    def stop(self) -> None:
        """Have the image leave the loop before its next call."""
        os.pwrite(self._file, b"\1", 0)

    def close(self) -> None:
        """Remove the file; it may be gone already."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)


class Writer:
    """The loop's side of an image's file; called after each call of the UNet."""

    def __init__(self, stream: str, token: str, preview: Preview | None) -> None:
        """Open the file of `token`, made by the model `stream`; OSError if there is none.

        `preview` draws previews; None for a model that has no colours for them.
        """
        self._file = os.open(_path(stream, token), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        *_, self._every = _OWNER.unpack(os.pread(self._file, _OWNER.size, 0))
        self._preview = preview

    def __call__(self, image: Denoising, model_output: np.ndarray) -> None:
        step, total = image.calls_before + image.call + 1, image.calls_in_all
        if self._preview and self._every and step % self._every == 0 and step < total:
            self._draw(step, image, model_output)
        os.pwrite(self._file, _STEP.pack(step, total), _STEP_AT)

    def _draw(self, step: int, image: Denoising, model_output: np.ndarray) -> None:
        try:
            pixels = self._preview.pixels(image.model_input(), image.timestep, model_output)
        except NotFinite:  # the image itself will say so
            return
        every = 1
        while pixels[::every, ::every].size > 3 * _MOST_PIXELS:
            every += 1
        pixels = pixels[::every, ::every]
        size = _SIZE.pack(step, *pixels.shape[:2])
        os.pwrite(self._file, size + pixels.tobytes() + _END.pack(step), _SIZE_AT)

    def begin(self) -> None:
        """Tell that a stage has the image's request."""
        os.pwrite(self._file, b"\1", _BEGUN_AT)

    def stopped(self) -> bool:
        """Whether the image is to be given up; takes one system call."""
        return os.pread(self._file, 1, 0) == b"\1"

    def close(self) -> None:
        os.close(self._file)


def writer(stream: str, request_id: str, preview: Preview | None) -> Writer | None:
    """The writer for the request of that id; None if the model `stream` does not stream it.

    The id is the record's token, or ends in it after a colon.
    """
    token = request_id.rpartition(":")[2]
    if not re.fullmatch("[0-9a-f]{32}", token):
        return None
    try:
        return Writer(stream, token, preview)
    except OSError:
        return None


def tell_begun(stream: str, request_id: str) -> None:
    """Tell the model `stream`, if the request of that id is its own, that a stage has it."""
    found = writer(stream, request_id, None)
    if found is not None:
        found.begin()
        found.close()


def clear(stream: str) -> None:
    """Delete the files of a process of the model `stream` that was killed."""
    remove(_prefix(stream))


def _path(stream: str, token: str) -> Path:
    return FOLDER / (_prefix(stream) + token)


def _prefix(stream: str) -> str:
    """The same in all processes of one server: the launcher's, or by their parent's id.

    A model's is never the beginning of another's: no model's name ends in `_stream`, so that the
    sign after it tells them apart.
    """
    server = os.environ.get(PREFIX_VARIABLE, f"triptych_{os.getppid()}_")
    return f"{server}progress_{stream}="
