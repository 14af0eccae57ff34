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
        self, count: int, make: Callable[[Observer], DenoisingLoop], observer: Observer
    ) -> None:
        whole = _Whole(observer)
        self._loops = [make(whole.part()) for _ in range(count)]

    def submit(
        self,
        image: Denoising,
        done: Callable[[np.ndarray | Exception], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        min(self._loops, key=lambda loop: loop.held).submit(image, done, cancelled)

    def run_to_end(self, images: Sequence[Denoising]) -> list[np.ndarray | Exception]:
        return self._loops[0].run_to_end(images)

    def close(self) -> None:
        for loop in self._loops:
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

    def stepped(self, images: int) -> None:
        with self._whole.lock:
            self._whole.observer.stepped(images)

    def finished(self) -> None:
        with self._whole.lock:
            self._whole.observer.finished()

    def in_flight(self, images: int) -> None:
        with self._whole.lock:
            self._images = images
            self._whole.observer.in_flight(sum(part._images for part in self._whole.parts))
