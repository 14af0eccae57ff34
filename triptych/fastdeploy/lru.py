"""Things that are kept, within a number of bytes; those used longest ago go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Lru:
    """What was used last, which takes about `most` bytes together; one alone may be larger.

    Each counts for `least` bytes at least, which bounds their number.
    """

    def __init__(self, most: float, least: int = 0) -> None:
        self._most, self._least = most, least
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """What is kept under `key`, else what `make` gives, with its bytes."""
        if key not in self._kept:
            self.put(key, *make())
        return self.find(key)

    def find(self, key: Hashable) -> Any:
        """What is kept under `key`, None if nothing is."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Hashable, thing: Any, nbytes: int) -> None:
        """Keep `thing`, which has so many bytes, under `key`."""
        self.drop(key)
        self._kept[key] = thing, max(nbytes, self._least)
        self.bytes += self._kept[key][1]
        while len(self._kept) > 1 and self.bytes > self._most:
            self.drop(next(iter(self._kept)))

    def keys(self) -> list[Hashable]:
        """What something is kept under."""
        return list(self._kept)

    def drop(self, key: Hashable) -> None:
        """Keep nothing under `key`."""
        _, nbytes = self._kept.pop(key, (None, 0))
        self.bytes -= nbytes

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self.bytes = 0
