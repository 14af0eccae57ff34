"""Several loops in place of one: while one waits for the UNet, the others take their own steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.observer import Observer
from triptych.errors import LoopClosed


class Cohorts:
    """Used as a DenoisingLoop: a loop for each process of the UNet, and two where calls are full.

    An image goes to the loop that holds the fewest rows, and stays there. Where the images of a
    process do not fit in one call, it has a second loop, whose call waits in line while the first
    one's runs: the UNet then has no time without a call. Two loops would share out fewer images,
    and smaller calls are less efficient. Images with LoRAs all go to the first one, since each
    switch to other weights takes time.
    """

    def __init__(
        self,
        count: Callable[[], int],
        make: Callable[[int, Observer], DenoisingLoop],
        observer: Observer,
    ) -> None:
        """`count` says how many processes there are now, `make` makes a loop for one of them.

        It gets the process's number, from 0.
        """
        self._count = count
        self._make = make
        self._whole = _Whole(observer)
        self._lock = threading.Lock()
        self._closed = False
        self._first = [make(0, self._whole.part())]
        self._second: list[DenoisingLoop] = []

    def submit(
        self,
        image: Denoising,
        done: Callable[[np.ndarray | Exception], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        with self._lock:
            if self._closed:
                raise LoopClosed("the denoising loop is closed")
            self._loop_for(image).submit(image, done, cancelled)

    def run_to_end(
        self,
        images: Sequence[Denoising],
        cancelled: Callable[[Denoising], bool] = lambda image: False,
    ) -> list[np.ndarray | Exception]:
        return self._first[0].run_to_end(images, cancelled)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            loops = self._first + self._second
        for loop in loops:
            loop.close()

    def _loop_for(self, image: Denoising) -> DenoisingLoop:
        count = self._count()
        loops = self._some(self._first, count)
        chosen = min(loops, key=_held_rows)
        if chosen.has_room(image) or image.call_key.adapters:
            return chosen
        return min(loops + self._some(self._second, count), key=_held_rows)

    def _some(self, loops: list[DenoisingLoop], count: int) -> list[DenoisingLoop]:
        """The first `count` of `loops`, those that are missing made."""
        while len(loops) < count:
            loops.append(self._make(len(loops), self._whole.part()))
        return loops[:count]


def _held_rows(loop: DenoisingLoop) -> int:
    return loop.held_rows


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
