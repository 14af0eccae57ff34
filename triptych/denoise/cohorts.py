"""Several loops in place of one: while one waits for the UNet, the others take their own steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.observer import Observer


class Cohorts:
    """Used as a DenoisingLoop; an image goes to the loop that holds the fewest, and stays there."""

    def __init__(
        self,
        count: Callable[[], int],
        make: Callable[[Observer], DenoisingLoop],
        observer: Observer,
    ) -> None:
        """`count` says how many loops new images go to; more of them are made when it grows."""
        self._count = count
        self._make = make
        self._whole = _Whole(observer)
        self._lock = threading.Lock()
        self._loops = [make(self._whole.part())]

    def submit(
        self,
        image: Denoising,
        done: Callable[[np.ndarray | Exception], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        with self._lock:
            count = self._count()
            while len(self._loops) < count:
                self._loops.append(self._make(self._whole.part()))
            loop = min(self._loops[:count], key=lambda loop: loop.held)
            loop.submit(image, done, cancelled)

    def run_to_end(self, images: Sequence[Denoising]) -> list[np.ndarray | Exception]:
        return self._loops[0].run_to_end(images)

    def close(self) -> None:
        with self._lock:
            self._count = lambda: len(self._loops)  # no more
            loops = list(self._loops)
        for loop in loops:
            loop.close()


class _Whole:
    """One observer for all loops: told by one thread at a time, of the images of all."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.lock = threading.Lock()
        self.parts: list[_Part] = []

    def part(self) -> _Part:
        self.parts.append(_Part(self))
        return self.parts[-1]


class _Part(Observer):
    def __init__(self, whole: _Whole) -> None:
        self._whole = whole
        self._images = 0

    def queued(self, seconds: float) -> None:
        with self._whole.lock:
            self._whole.observer.queued(seconds)

    def called(self, rows: int) -> None:
        with self._whole.lock:
            self._whole.observer.called(rows)

    def stepped(self, images: Sequence[Denoising], rows: int, begun: int) -> None:
        with self._whole.lock:
            self._whole.observer.stepped(images, rows, begun)

    def finished(self) -> None:
        with self._whole.lock:
            self._whole.observer.finished()

    def in_flight(self, images: int) -> None:
        with self._whole.lock:
            self._images = images
            self._whole.observer.in_flight(sum(part._images for part in self._whole.parts))
