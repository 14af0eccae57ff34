"""Continuous batching of the denoising loop: every image in flight shares the UNet's calls."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from triptych.denoise.denoising import Denoising
from triptych.denoise.in_flight import Flight, InFlight, PredictNoise
from triptych.denoise.observer import Observer
from triptych.errors import LoopClosed


class DenoisingLoop:
    """Denoises many images at once, each at its own timestep, scheduler and step count.

    The life of a request:
    1. Submitted: `submit` hands the image to the loop's thread; it joins before the next call.
    2. Gathered: a call takes the image served longest ago and as many others with its CallKey as
       fit, in the same order, and copies their rows together. Sets of LoRAs have a few calls each
       in turn.
    3. Stepped: one `predict_noise` call for all of them, then each its own guidance and scheduler
       step. 2 and 3 repeat, every image in turn, until the image has made all its calls.
    4. Answered: `done` is called once, with the latents or the reason why there are none, and the
       image leaves at once, while the others go on.

    `predict_noise` gets what `CallArguments` describes, N at most `max_rows`, and returns the
    model's output, float32, shaped as `sample`. For images with LoRAs it gets `adapters`, which all
    images of a call have in common. The arguments are valid during the call only. What
    it raises fails the images in that call, no others.
    """

    def __init__(
        self,
        predict_noise: PredictNoise,
        max_rows: int,
        observer: Observer | None = None,
    ) -> None:
        if max_rows < 2:
            raise ValueError(f"max_rows: got {max_rows}; allowed: from 2, what guidance takes")
        self._predict_noise = predict_noise
        self._max_rows = max_rows
        self._observer = observer or Observer()
        self._condition = threading.Condition()
        self._arrived: list[Flight] = []
        self._held_rows = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def held_rows(self) -> int:
        """Rows of the images submitted and not done yet, as many as each had when it came."""
        return self._held_rows

    def has_room(self, image: Denoising) -> bool:
        """Whether one call can have all rows that are held, and the image's."""
        return self._held_rows + len(image.conditioning) <= self._max_rows

    def submit(
        self,
        image: Denoising,
        done: Callable[[np.ndarray | Exception], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Denoise `image`; from any thread, returns at once.

        `done` is called exactly once, from the loop's thread, with `image.result()` or an
        exception: what failed, Cancelled, Expired or LoopClosed. Before every call the image's
        deadline is checked and `cancelled` asked.
        Raises LoopClosed, with no call of `done`, if the loop is closed already, and RuntimeError
        if no thread can be started now.
        """

        rows = len(image.conditioning)

        def leave(result: np.ndarray | Exception) -> None:
            with self._condition:
                self._held_rows -= rows
            done(result)

        with self._condition:
            if self._closed:
                raise LoopClosed("the denoising loop is closed")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="denoising", daemon=True)
                thread.start()
                self._thread = thread
            self._arrived.append(Flight(image, leave, cancelled))
            self._held_rows += rows
            self._condition.notify()

    def run_to_end(
        self,
        images: Sequence[Denoising],
        cancelled: Callable[[Denoising], bool] = lambda image: False,
    ) -> list[np.ndarray | Exception]:
        """Denoise `images` in this thread; for each, in order, what `done` would have got."""
        results: list[Any] = [None] * len(images)
        in_flight = InFlight(self._predict_noise, self._max_rows, self._observer)
        for position, image in enumerate(images):
            done = functools.partial(results.__setitem__, position)
            in_flight.join(Flight(image, done, functools.partial(cancelled, image)))
        while in_flight.flights:
            in_flight.call()
        return results

    def close(self) -> None:
        """End the thread after the call it is in; images not finished get LoopClosed."""
        with self._condition:
            self._closed = True
            self._condition.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        in_flight = InFlight(self._predict_noise, self._max_rows, self._observer)
        try:
            while True:
                with self._condition:
                    while not (self._arrived or in_flight.flights or self._closed):
                        self._condition.wait()
                    arrived, self._arrived = self._arrived, []
                    closed = self._closed
                for flight in arrived:
                    in_flight.join(flight)
                if closed:
                    return
                in_flight.call()
        finally:
            # Also the end of a thread that dies of something that is no Exception.
            with self._condition:
                self._closed = True
                arrived, self._arrived = self._arrived, []
            for flight in arrived:
                in_flight.join(flight)
            for flight in list(in_flight.flights):
                in_flight.leave(flight, LoopClosed("the denoising loop was closed before its end"))
