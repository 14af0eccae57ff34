"""Pictures that are kept for a while, to be fetched by their address."""

from __future__ import annotations

import time
from collections import OrderedDict

SECONDS = 3600
MAX_BYTES = 256 * 1024 * 1024


class Kept:
    """The newest pictures by name: for an hour at most, and no more than MAX_BYTES together."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def put(self, name: str, file: bytes) -> None:
        """Keep `file`; older ones go where it needs their room."""
        self._files[name] = (time.monotonic(), file)
        self._bytes += len(file)
        while self._bytes > MAX_BYTES:
            self._drop_oldest()

    def get(self, name: str) -> bytes | None:
        """The file of that name, if it is still kept."""
        while self._files and self._oldest() < time.monotonic() - SECONDS:
            self._drop_oldest()
        return self._files[name][1] if name in self._files else None

    def _oldest(self) -> float:
        return next(iter(self._files.values()))[0]

    def _drop_oldest(self) -> None:
        _, (_, file) = self._files.popitem(last=False)
        self._bytes -= len(file)
