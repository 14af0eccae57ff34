"""Which stages are at work, and whether the server is to end: between them and the launcher.

Triton tells nobody what it has in flight, and once it ends it lets no stage follow another: who
ends it must know that nobody is at work. Each stage's process has a small file for that, in a
folder of the server's run.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

from triptych.errors import Unavailable

VARIABLE = "TRIPTYCH_ACTIVITY"
"""The environment variable with the folder; without it the stages tell nobody."""

SETTLED = 1.0
"""Seconds without work after which nothing is on its way from one stage to the next either."""

_FIELDS = struct.Struct("=QdQQQQ")
_ENDING, _LOST = "ending", "lost"


class Seen(NamedTuple):
    """What a stage's process tells.

    `count` is what it has at work, `ended` when that last changed, on the monotonic clock. Images
    since it was loaded: `came` to it, `went` on to the next stage, `failed` in it. `limit`: how
    many may be on their way at once, 0 if the stage sets none.
    """

    count: int = 0
    ended: float = 0.0
    came: int = 0
    went: int = 0
    failed: int = 0
    limit: int = 0


class Activity:
    """The work of one stage's process: requests in `execute`, or images in the loop."""

    def __init__(self, model: str) -> None:
        self._folder = os.environ.get(VARIABLE)
        self._seen = Seen()
        self._lock = threading.Lock()
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
        self._tell(count=count, ended=time.monotonic())

    def images(self, came: int = 0, went: int = 0, failed: int = 0) -> None:
        """So many images more came, went on, or failed."""
        with self._lock:
            seen = self._seen
            self._write(came=seen.came + came, went=seen.went + went, failed=seen.failed + failed)

    @property
    def went(self) -> int:
        """Images that went on to the next stage."""
        return self._seen.went

    @property
    def folder(self) -> Path | None:
        """Where all stages have their files, if anybody is told."""
        return None if self._folder is None else Path(self._folder)

    def limit(self, images: int) -> None:
        """So many images may be on their way at once."""
        self._tell(limit=images)

    def _tell(self, **changed: float) -> None:
        with self._lock:
            self._write(**changed)

    def _write(self, **changed: float) -> None:
        self._seen = self._seen._replace(**changed)
        _FIELDS.pack_into(self._map, 0, *self._seen)

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
        except OSError:  # not there, or no file can be opened: then nobody says that one died
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
            seen.count or now - seen.ended < SETTLED
            for path, seen in self._read()
            if Path("/proc", path.name.rpartition("-")[2]).exists()
        )

    @property
    def worked(self) -> bool:
        """Whether any stage has had something to do."""
        return any(seen.ended for _, seen in self._read())

    def _read(self) -> list[tuple[Path, Seen]]:
        return [(path, _read(path)) for path in self.folder.glob("*-*")]


class Watched:
    """One stage as the others see it, through loading and unloading."""

    LOOK = 1.0
    """Seconds between two looks for its newest process."""

    def __init__(self, folder: Path | None, model: str) -> None:
        self._folder = folder
        self._model = model
        self._path: Path | None = None
        self._map: mmap.mmap | None = None
        self._looked = -math.inf

    def see(self) -> Seen:
        """What it tells; nothing of a stage that is not there."""
        now = time.monotonic()
        if self._folder is not None and now - self._looked > self.LOOK:
            self._looked = now
            self._look(self._folder)
        return Seen() if self._map is None else Seen(*_FIELDS.unpack_from(self._map))

    def _look(self, folder: Path) -> None:
        paths = folder.glob(f"{self._model}-*")
        newest = max(paths, key=lambda path: path.stat().st_ctime_ns, default=None)
        if newest is not None and newest != self._path:
            with newest.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), _FIELDS.size, access=mmap.ACCESS_READ)
            self._path = newest


def _read(path: Path) -> Seen:
    return Seen(*_FIELDS.unpack(path.read_bytes()))
