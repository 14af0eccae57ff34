"""Which picture's turn comes when: those that wait for their first step, in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Line:
    """The pictures that wait; used in a gateway's event loop alone."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[int], None]] = []

    @contextmanager
    def wait(self, tell: Callable[[int], None]) -> Iterator[Callable[[], None]]:
        """A place at the line's end, until the function is called that this gives, or the end.

        `tell(place)` is called at once, and whenever the place changes; 1 is the next in turn.
        """

        def leave() -> None:
            if tell in self._waiting:
                self._waiting.remove(tell)
                self._tell_all()

        self._waiting.append(tell)
        tell(len(self._waiting))
        try:
            yield leave
        finally:
            leave()

    def _tell_all(self) -> None:
        for place, tell in enumerate(self._waiting, 1):
            tell(place)
