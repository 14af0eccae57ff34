"""Which stages are at work, told to the launcher, and whether the server is ending, told to them.

Triton does not say what it has in flight, and once it is told to end, a request that has left one
stage does not reach the next. So the launcher ends it when no stage is at work. Each stage's
process has a small file for that in a folder of the server's run; the launcher has its own there.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from triptych.errors import Unavailable

VARIABLE = "TRIPTYCH_ACTIVITY"
"""The environment variable with that folder's path; where it is not set, nobody is told."""

SETTLED = 1.0
"""Seconds without work in any stage after which no request is between two stages either."""

NEWEST = 256
"""Images that came, and that went, of which a stage still tells which they were."""

_FIELDS = struct.Struct("=QdQQQQ")
_IMAGE = struct.Struct("=Q")
_CAME, _WENT = (_FIELDS.size + half * NEWEST * _IMAGE.size for half in (0, 1))
_SIZE = _WENT + NEWEST * _IMAGE.size
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


class News(NamedTuple):
    """What the processes of a model tell, and what is new since they were last asked.

    `seen`: their sums; `ended` is the last, `limit` the largest now. `came`, `went`: which images
    did, by `known_as`; of more than NEWEST in one process the last ones.
    """

    seen: Seen
    came: list[int]
    went: list[int]


class Activity:
    """What one stage's process tells: how many requests, or images, it is working on.

    As a context manager: one is worked on within.
    """

    def __init__(self, model: str) -> None:
        self._folder = os.environ.get(VARIABLE)
        self._seen = Seen()
        self._lock = threading.Lock()
        if self._folder is None:
            self._map = mmap.mmap(-1, _SIZE)
            return
        name = Path(self._folder, f"{model}-{os.getpid()}")
        with open(name.with_name(f"{os.getpid()}.new"), "w+b") as file:
            file.truncate(_SIZE)
            self._map = mmap.mmap(file.fileno(), _SIZE)
            os.replace(file.name, name)

    def set(self, count: int) -> None:
        """Tell that it works on `count` of them now."""
        self._tell(count=count, ended=time.monotonic())

    def images(
        self, came: Sequence[bytes] = (), went: Sequence[bytes] = (), failed: int = 0
    ) -> None:
        """Tell which images more came to it and went on to the next stage, and how many failed.

        An image is known by its settings, which all stages get as the tokenizer writes them.
        """
        with self._lock:
            seen = self._seen
            for begin, number, images in ((_CAME, seen.came, came), (_WENT, seen.went, went)):
                for at, image in enumerate(images, number):
                    place = begin + at % NEWEST * _IMAGE.size
                    _IMAGE.pack_into(self._map, place, known_as(image))
            self._write(
                came=seen.came + len(came), went=seen.went + len(went), failed=seen.failed + failed
            )

    @property
    def folder(self) -> Path | None:
        """Where all stages have their files, if anybody is told."""
        return None if self._folder is None else Path(self._folder)

    def limit(self, images: int) -> None:
        """Tell how many images may be on their way at once."""
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
        """Whether the launcher has said that no more requests are to be taken."""
        return self._folder is not None and os.path.exists(os.path.join(self._folder, _ENDING))

    def check_whole(self) -> None:
        """Raise Unavailable if a stage's process has died: the launcher restarts the server."""
        if self._folder is None:
            return
        try:
            lost = Path(self._folder, _LOST).read_text()
        except OSError:  # not there, or no file can be opened: then nobody says that one died
            return
        raise Unavailable(f"the process of {lost} died; the server starts again, try later")

    def check_serving(self) -> None:
        """Raise Unavailable if no new request is to be taken, as above or since the server ends."""
        self.check_whole()
        if self.server_is_ending:
            raise Unavailable("the server is ending and takes no more requests")


def known_as(image: bytes) -> int:
    """The number by which stages tell of the image with these settings."""
    return _IMAGE.unpack(hashlib.blake2b(image, digest_size=_IMAGE.size).digest())[0]


class Stages:
    """The launcher's side: what all stages of a run tell. Makes the run's `folder` for that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)

    def end(self) -> None:
        """Tell the stages to take no more requests."""
        (self.folder / _ENDING).touch()

    def lose(self, model: str) -> None:
        """Tell that the process of `model` died, so that the others answer what they hold."""
        new = self.folder / f"{_LOST}.new"
        new.write_text(model)
        new.replace(self.folder / _LOST)

    @property
    def idle(self) -> bool:
        """Whether no living stage has been at work for `SETTLED` seconds."""
        now = time.monotonic()
        return not any(
            seen.count or now - seen.ended < SETTLED for path, seen in self._read() if _lives(path)
        )

    @property
    def worked(self) -> bool:
        """Whether any stage has been at work since it was loaded."""
        return any(seen.ended for _, seen in self._read())

    def _read(self) -> list[tuple[Path, Seen]]:
        # A model's name may have "-" in it, and its channel's socket is here too.
        paths = (path for path in self.folder.glob("*-*") if _process(path).isdecimal())
        return [(path, _read(path)) for path in paths]


class Instances:
    """All processes of one model, loaded or not, as the other stages see them.

    A process's file stays when its model is unloaded, so that totals of images only grow.
    """

    LOOK = 1.0
    """Seconds between two looks for new processes."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._folder = folder
        self._name = name
        self._maps: dict[Path, mmap.mmap] = {}
        self._told: dict[Path, Seen] = {}
        self._looked = -math.inf

    def news(self) -> News:
        """What they tell now."""
        self._look_again()
        told = {path: Seen(*_FIELDS.unpack_from(one)) for path, one in self._maps.items()}
        columns = Seen(*zip(*told.values())) if told else Seen(*zip(Seen()))
        limit = max((seen.limit for path, seen in told.items() if _lives(path)), default=0)
        seen = Seen(*map(sum, columns))._replace(ended=max(columns.ended), limit=limit)
        came: list[int] = []
        went: list[int] = []
        for path, new in told.items():
            old = self._told.get(path, Seen())
            came += _images(self._maps[path], _CAME, old.came, new.came)
            went += _images(self._maps[path], _WENT, old.went, new.went)
        self._told = told
        return News(seen, came, went)

    def living(self) -> int:
        """How many of the processes there are now, those that are still loading included."""
        self._look_again()
        return sum(map(_lives, self._maps))

    def _look_again(self) -> None:
        now = time.monotonic()
        if self._folder is not None and now - self._looked > self.LOOK:
            self._looked = now
            self._look(self._folder)

    def _look(self, folder: Path) -> None:
        for path in folder.glob(f"{self._name}-*"):
            # A model's name may go on after a stage's name and "-".
            of_model = path.name[len(self._name) + 1 :].isdecimal()
            if of_model and path not in self._maps:
                with path.open("rb") as file:
                    access = mmap.ACCESS_READ
                    self._maps[path] = mmap.mmap(file.fileno(), _SIZE, access=access)


def _process(path: Path) -> str:
    """The number of the process whose file it is; another text for any other file."""
    return path.name.rpartition("-")[2]


def _lives(path: Path) -> bool:
    return Path("/proc", _process(path)).exists()


def _read(path: Path) -> Seen:
    return Seen(*_FIELDS.unpack_from(path.read_bytes()))


def _images(one: mmap.mmap, begin: int, first: int, end: int) -> list[int]:
    places = (begin + at % NEWEST * _IMAGE.size for at in range(max(first, end - NEWEST), end))
    return [_IMAGE.unpack_from(one, place)[0] for place in places]
