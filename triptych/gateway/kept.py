"""Pictures that are kept in memory for a while, so that a client can fetch them by URL."""

from __future__ import annotations

import time
from collections import OrderedDict

SECONDS = 3600
MAX_BYTES = 256 * 1024 * 1024


class Kept:
    """Files by name, each for SECONDS at most, and the newest MAX_BYTES of them all."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def put(self, name: str, file: bytes) -> None:
        """Keep `file`, and drop the oldest ones beyond MAX_BYTES."""
        self._files[name] = (time.monotonic(), file)
        self._bytes += len(file)
        while self._bytes > MAX_BYTES:
            self._drop_oldest()

    def get(self, name: str) -> bytes | None:
        """The file of that name; None if there is none, or it was dropped."""
        while self._files and self._oldest() < time.monotonic() - SECONDS:
            self._drop_oldest()
        return self._files[name][1] if name in self._files else None

    def _oldest(self) -> float:
        return next(iter(self._files.values()))[0]

    def _drop_oldest(self) -> None:
        _, (_, file) = self._files.popitem(last=False)
        self._bytes -= len(file)
