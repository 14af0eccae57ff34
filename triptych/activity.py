"""Which stages are at work, and whether the server is to end: between them and the launcher.

Triton tells nobody what it has in flight, and once it ends it lets no stage follow another: who
ends it must know that nobody is at work. Each stage's process has a small file for that, in a
folder of the server's run.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

from triptych.errors import Unavailable

VARIABLE = "TRIPTYCH_ACTIVITY"
"""The environment variable with the folder; without it the stages tell nobody."""

SETTLED = 1.0
"""Seconds without work after which nothing is on its way from one stage to the next either."""

_FIELDS = struct.Struct("=Id")  # what is at work, and when work last ended, on the monotonic clock
_ENDING, _LOST = "ending", "lost"


class Activity:
    """The work of one stage's process: requests in `execute`, or images in the loop."""

    def __init__(self, model: str) -> None:
        self._folder = os.environ.get(VARIABLE)
        if self._folder is None:
            self._map = mmap.mmap(-1, _FIELDS.size)
            return
        name = Path(self._folder, f"{model}-{os.getpid()}")
        with open(name.with_name(f"{os.getpid()}.new"), "w+b") as file:
            file.truncate(_FIELDS.size)
            self._map = mmap.mmap(file.fileno(), _FIELDS.size)
            os.replace(file.name, name)

    def set(self, count: int) -> None:
        """So many are at work now."""
        _FIELDS.pack_into(self._map, 0, count, time.monotonic())

    def __enter__(self) -> None:
        self.set(1)

    def __exit__(self, *_: object) -> None:
        self.set(0)

    @property
    def server_is_ending(self) -> bool:
        """Whether no more requests are to be taken."""
        return self._folder is not None and os.path.exists(os.path.join(self._folder, _ENDING))

    def check_whole(self) -> None:
        """Raise Unavailable if a stage's process died, so that the server is about to restart."""
        if self._folder is None:
            return
        try:
            lost = Path(self._folder, _LOST).read_text()
        except FileNotFoundError:
            return
        raise Unavailable(f"the process of {lost} died; the server starts again, try later")

    def check_serving(self) -> None:
        """Raise Unavailable if no new requests are to be taken."""
        self.check_whole()
        if self.server_is_ending:
            raise Unavailable("the server is ending and takes no more requests")


class Stages:
    """The other side: all stages of a run whose `folder`, which is made, has their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)

    def end(self) -> None:
        """Have no more requests taken."""
        (self.folder / _ENDING).touch()

    def lose(self, model: str) -> None:
        """Have all requests answered that a living stage holds: what `model` held has no answer."""
        new = self.folder / f"{_LOST}.new"
        new.write_text(model)
        new.replace(self.folder / _LOST)

    @property
    def idle(self) -> bool:
        """Whether no stage is at work or about to be."""
        now = time.monotonic()
        return not any(
            count or now - ended < SETTLED
            for path, (count, ended) in self._read()
            if Path("/proc", path.name.rpartition("-")[2]).exists()
        )

    @property
    def worked(self) -> bool:
        """Whether any stage has had something to do."""
        return any(ended for _, (_, ended) in self._read())

    def _read(self) -> list[tuple[Path, tuple[int, float]]]:
        return [(path, _FIELDS.unpack(path.read_bytes())) for path in self.folder.glob("*-*")]
