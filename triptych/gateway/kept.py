"""Pictures that are kept for a while, so that a client can fetch them by URL."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from pathlib import Path

from triptych.gateway.errors import Problem

SECONDS = 3600
MAX_BYTES = 256 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-]{24}\.[a-z]+")
"""As the gateway chooses names: other files in a folder are neither given nor deleted."""

log = logging.getLogger(__name__)


class Kept:
    """Files by name, in memory: each for SECONDS at most, and the newest MAX_BYTES of them all."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, name: str, file: bytes) -> None:
        """Keep `file`, and drop the oldest ones beyond MAX_BYTES."""
        with self._lock:
            self._files[name] = (time.monotonic(), file)
            self._bytes += len(file)
            while self._bytes > MAX_BYTES:
                self._drop_oldest()

    def get(self, name: str) -> bytes | None:
        """The file of that name; None if there is none, or it was dropped."""
        with self._lock:
            while self._files and self._oldest() < time.monotonic() - SECONDS:
                self._drop_oldest()
            return self._files[name][1] if name in self._files else None

    def _oldest(self) -> float:
        return next(iter(self._files.values()))[0]

    def _drop_oldest(self) -> None:
        _, (_, file) = self._files.popitem(last=False)
        self._bytes -= len(file)


class KeptInFolder:
    """The same in a folder, for all gateways that have it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, file: bytes) -> None:
        """Keep `file`, and drop the oldest ones beyond MAX_BYTES. Problem 503 if it cannot."""
        new = self._folder / f".{name}"
        try:
            new.write_bytes(file)
            os.replace(new, self._folder / name)
            self._drop()
        except OSError as error:
            log.error("a picture cannot be kept: %s", error)
            told = "the picture cannot be kept now: ask for response_format b64_json"
            raise Problem(503, told) from error

    def get(self, name: str) -> bytes | None:
        """The file of that name; None if there is none, or it is too old."""
        path = self._folder / name
        try:
            return path.read_bytes() if _NAME.fullmatch(name) and _is_new(path.stat()) else None
        except OSError:
            return None

    def _drop(self) -> None:
        found = []
        for path in self._folder.iterdir():
            if _NAME.fullmatch(path.name.removeprefix(".")):
                with contextlib.suppress(FileNotFoundError):  # another gateway has dropped it
                    found.append((path.stat(), path))
        size = 0
        for stat, path in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
            size += stat.st_size
            if size > MAX_BYTES or not _is_new(stat):
                path.unlink(missing_ok=True)


def _is_new(stat: os.stat_result) -> bool:
    return stat.st_mtime > time.time() - SECONDS
