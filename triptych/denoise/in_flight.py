"""The images in flight and the calls of the UNet that serve them, a few at a time."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, Callable

import numpy as np

from triptych.denoise.call import CallBuffers, CallKey
from triptych.denoise.deep_cache import DeepCache
from triptych.denoise.denoising import Denoising
from triptych.denoise.observer import Observer
from triptych.errors import Cancelled
from triptych.lora.folder import Adapters

logger = logging.getLogger(__name__)

PredictNoise = Callable[..., np.ndarray]
"""The UNet as a function of `CallArguments`; of `adapters` for images that have some, and of their
`deep_cache` for images with a `cache_interval`.

It is called again for a call's other images after an error that names some by their deep features.
"""

TURN = 4
"""Calls in a row for one set of LoRAs, none being one too: a switch to other weights takes time."""

WAITS = 2
"""Calls in a row that leave out an image with a `cache_interval`: others are then due with it."""

MOST_GONE = 256
"""Images that left and whose deep features the UNet is still to drop; others age out."""


class Flight:
    """An image in the loop, with whom to tell. `waited`: calls in a row that left it for later."""

    def __init__(
        self,
        image: Denoising,
        done: Callable[[np.ndarray | Exception], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.image = image
        self.done = done
        self.cancelled = cancelled
        self.submitted: float | None = time.monotonic()
        self.key = image.call_key
        self.waited = 0

    @property
    def rows(self) -> int:
        """How many rows the image takes in its next call."""
        return len(self.image.conditioning)


class InFlight:
    """The images in flight in the order of their calls, and the calls that serve them.

    Sets of LoRAs take turns of TURN calls, images of a set take turns within it.
    """

    def __init__(self, predict_noise: PredictNoise, max_rows: int, observer: Observer) -> None:
        self.flights: list[Flight] = []
        self._predict_noise = predict_noise
        self._max_rows = max_rows
        self._observer = observer
        self._buffers: dict[CallKey, CallBuffers] = {}
        self._adapters: Adapters = ()
        self._calls = 0
        self._gone: deque[str] = deque(maxlen=MOST_GONE)

    def join(self, flight: Flight) -> None:
        self.flights.append(flight)
        self._tell(self._observer.in_flight, len(self.flights))

    def leave(self, flight: Flight, result: np.ndarray | Exception) -> None:
        self.flights.remove(flight)
        self._forget(flight)
        if not isinstance(result, Exception):
            self._tell(self._observer.finished)
        self._tell(flight.done, result)
        self._tell(self._observer.in_flight, len(self.flights))

    def _forget(self, flight: Flight) -> None:
        """Let go of what was kept for the image of a flight that is not among the others."""
        if not any(other.key == flight.key for other in self.flights):
            self._buffers.pop(flight.key, None)
        if flight.key.deep_cache:
            self._gone.append(flight.image.deep_name)

    def _follow(self, flight: Flight, image: Denoising) -> None:
        """Have `image`, the second pass of a flight's image, take its place."""
        self.flights.remove(flight)
        self._forget(flight)
        flight.image, flight.key = image, image.call_key
        self.flights.append(flight)

    def call(self) -> None:
        """One call of the UNet for the images whose turn it is, and their scheduler steps."""
        self._drop_unwanted()
        chosen, inputs = self._prepare(self._choose())
        if not chosen:
            return
        begun = time.time_ns()
        try:
            output = self._predict(chosen, inputs)
        except Exception as error:
            for flight in _meant(error, chosen):
                self.leave(flight, error)
            return
        images = [flight.image for flight in chosen]
        self._tell(self._observer.stepped, images, len(output), begun)
        row = 0
        for flight in chosen:
            rows = output[row : row + flight.rows]
            row += flight.rows
            try:
                result = self._advance(flight, rows)
            except Exception as error:
                result = error
            if result is not None:
                self.leave(flight, result)

    def _advance(self, flight: Flight, output: np.ndarray) -> np.ndarray | None:
        """One step with the image's rows of the output; the result of an image that is done."""
        image = flight.image
        image.advance(output)
        if not image.finished:
            return None
        following = image.following()
        if following is None:
            return image.result()
        self._follow(flight, following)
        return None

    def _drop_unwanted(self) -> None:
        for flight in list(self.flights):
            try:
                flight.image.check_deadline()
                if flight.cancelled():
                    self.leave(flight, Cancelled("cancelled before the image was finished"))
            except Exception as error:
                self.leave(flight, error)

    def _choose(self) -> list[Flight]:
        """The first image and those with its key that fit; the order is then the next call's."""
        key = self.flights[0].key if self.flights else None
        waiting: list[Flight] = []
        if key and key.deep_cache:
            waiting = _waiting([flight for flight in self.flights if flight.key == key])
        chosen: list[Flight] = []
        others: list[Flight] = []
        free = self._max_rows
        for flight in self.flights:
            if flight.key == key and flight not in waiting and flight.rows <= free:
                chosen.append(flight)
                free -= flight.rows
            elif flight not in waiting:
                others.append(flight)
        for flight in waiting:
            flight.waited += 1
        for flight in chosen:
            flight.waited = 0
        others += waiting
        self.flights = self._order(chosen, others) if chosen else others
        return chosen

    def _order(self, chosen: list[Flight], others: list[Flight]) -> list[Flight]:
        adapters = chosen[0].key.adapters
        self._calls = self._calls + 1 if adapters == self._adapters else 1
        self._adapters = adapters
        of_the_set = [flight for flight in others if flight.key.adapters == adapters] + chosen
        of_others = [flight for flight in others if flight.key.adapters != adapters]
        return of_others + of_the_set if self._calls % TURN == 0 else of_the_set + of_others

    def _prepare(self, chosen: list[Flight]) -> tuple[list[Flight], list[np.ndarray]]:
        """Those of `chosen` whose scheduler can say what the call takes, and what that is."""
        able, inputs = [], []
        for flight in chosen:
            try:
                inputs.append(flight.image.model_input())
                able.append(flight)
            except Exception as error:
                self.leave(flight, error)
        return able, inputs

    def _predict(self, chosen: list[Flight], inputs: list[np.ndarray]) -> np.ndarray:
        key = chosen[0].key
        if key not in self._buffers:
            self._buffers[key] = CallBuffers(self._max_rows, key)
        images = [flight.image for flight in chosen]
        arguments = self._buffers[key].fill(
            inputs, [image.timestep for image in images], [image.conditioning for image in images]
        )
        now = time.monotonic()
        for flight in chosen:
            if flight.submitted is not None:
                self._tell(self._observer.queued, now - flight.submitted)
                flight.submitted = None
        sample = arguments.sample
        self._tell(self._observer.called, len(sample))
        more: dict[str, Any] = {"adapters": key.adapters} if key.adapters else {}
        if key.deep_cache:
            deep = tuple(image.deep for image in images)
            more["deep_cache"] = DeepCache(deep, tuple(self._gone))
        output = np.asarray(self._predict_noise(*arguments, **more), dtype=np.float32)
        if key.deep_cache:
            self._gone.clear()
        if output.shape != sample.shape:
            raise RuntimeError(f"the UNet gave {list(output.shape)} for {list(sample.shape)}")
        return output

    def _tell(self, whom: Callable, *what: Any) -> None:
        """Call somebody else's function; what it raises is logged, and the loop goes on."""
        try:
            whom(*what)
        except Exception:
            logger.exception("%s failed", whom)


def _waiting(flights: list[Flight]) -> list[Flight]:
    """Of images with a `cache_interval` that could share a call those that it leaves for later.

    It runs the deep part for all of its images or for none: those that are due wait, for WAITS
    calls, while at least as many are not. So soon all are due together.
    """
    due = [flight for flight in flights if flight.image.deep_due]
    others = [flight for flight in flights if flight not in due]
    if not due or not others:
        return []
    now = len(due) > len(others) or max(flight.waited for flight in due) >= WAITS
    return others if now else due


def _meant(error: Exception, chosen: list[Flight]) -> list[Flight]:
    """Those of a call's images that its error is about: those whose features it names, or all."""
    caching = [flight for flight in chosen if flight.key.deep_cache]
    return [flight for flight in caching if flight.image.deep_name in str(error)] or chosen
