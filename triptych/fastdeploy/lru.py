"""Things that are kept, within a number of bytes; those used longest ago go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Lru:
    """What was made last, which takes about `most` bytes together; one alone may be larger."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

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
        self._kept[key] = thing, nbytes
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self.bytes > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Keep nothing under `key`."""
        self._kept.pop(key, None)

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._kept.values())
