"""Things that are kept, within a number of bytes; those used longest ago go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Lru:
    """What was made last, which takes about `most` bytes together; one alone may be larger."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """What is kept under `key`, else what `make` gives, with its bytes."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        made = make()
        self._kept[key] = made
        while len(self._kept) > 1 and self.bytes > self._most:
            self._kept.popitem(last=False)
        return made[0]

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._kept.values())
