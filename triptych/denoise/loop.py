"""Continuous batching of the denoising loop: every image in flight shares the UNet's calls."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from triptych.denoise.denoising import Denoising

logger = logging.getLogger(__name__)


class Cancelled(Exception):
    """The image was given up by whoever asked for it, before it was finished."""


class LoopClosed(Exception):
    """The loop was closed before the image was finished, or had been when it came."""


class Observer:
    """What a loop tells of its work, always from the thread that ticks; all of it does nothing."""

    def queued(self, seconds: float) -> None:
        """An image has its first call now, `seconds` after it was submitted."""

    def called(self, rows: int) -> None:
        """`predict_noise` is called with that many rows."""

    def stepped(self, images: int) -> None:
        """That many images have taken a scheduler step."""

    def finished(self) -> None:
        """An image has its latents."""

    def in_flight(self, images: int) -> None:
        """That many images are being denoised now; told when the number changes."""


class DenoisingLoop:
    """Denoises many images at once, each at its own timestep, scheduler and step count.

    The life of a request:
    1. Submitted: `submit` hands the image to the loop's thread; it joins at the next tick.
    2. Gathered: a tick takes the image served longest ago and as many others of its shape as fit
       in a call, in the same order, and copies their rows together.
    3. Stepped: one `predict_noise` call for all of them, then each its own guidance and scheduler
       step. Steps 2 and 3 repeat, every image in turn, until the image has made all its calls.
    4. Answered: `done` is called once, with the latents or the reason why there are none, and the
       image leaves at once, while the others go on.

    `predict_noise(sample [N, channels, h, w], timestep [N], encoder_hidden_states [N, L, C])`
    returns the model's output, shaped as `sample`; all float32, N at most `max_rows`. The arguments
    are valid during the call only; `encoder_hidden_states` is the same object as in the call before
    of that shape if and only if its contents are. What it raises fails the images in it, no others.
    """

    def __init__(
        self,
        predict_noise: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
        max_rows: int,
        observer: Observer | None = None,
    ) -> None:
        if max_rows < 2:
            raise ValueError(f"max_rows: got {max_rows}; allowed: from 2, what guidance takes")
        self._predict_noise = predict_noise
        self._max_rows = max_rows
        self._observer = observer or Observer()
        self._condition = threading.Condition()
        self._arrived: list[_Flight] = []
        self._held = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> int:
        """Images submitted and not done yet, those that have not joined a tick included."""
        return self._held

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
        Raises LoopClosed, with no call of `done`, if the loop is closed already.
        """

        def leave(result: np.ndarray | Exception) -> None:
            with self._condition:
                self._held -= 1
            done(result)

        with self._condition:
            if self._closed:
                raise LoopClosed("the denoising loop is closed")
            self._arrived.append(_Flight(image, leave, cancelled))
            self._held += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="denoising", daemon=True)
                self._thread.start()
            self._condition.notify()

    def run_to_end(self, images: Sequence[Denoising]) -> list[np.ndarray | Exception]:
        """Denoise `images` in this thread; for each, in order, what `done` would have got."""
        results: list[Any] = [None] * len(images)
        ticks = _Ticks(self._predict_noise, self._max_rows, self._observer)
        for position, image in enumerate(images):
            ticks.join(_Flight(image, lambda result, at=position: results.__setitem__(at, result)))
        while ticks.flights:
            ticks.tick()
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
        ticks = _Ticks(self._predict_noise, self._max_rows, self._observer)
        try:
            while True:
                with self._condition:
                    while not (self._arrived or ticks.flights or self._closed):
                        self._condition.wait()
                    arrived, self._arrived = self._arrived, []
                    closed = self._closed
                for flight in arrived:
                    ticks.join(flight)
                if closed:
                    return
                ticks.tick()
        finally:
            # Also the end of a thread that dies of something that is no Exception.
            with self._condition:
                self._closed = True
                arrived, self._arrived = self._arrived, []
            for flight in arrived:
                ticks.join(flight)
            for flight in list(ticks.flights):
                ticks.leave(flight, LoopClosed("the denoising loop was closed before its end"))


class _Flight:
    """An image in the loop, with whom to tell."""

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
        self.shape = (image.latents.shape, image.embeds[0].shape)
        self.rows = image.rows


class _Ticks:
    """The images in flight, longest unserved first, and the call that serves some of them."""

    def __init__(self, predict_noise: Callable, max_rows: int, observer: Observer) -> None:
        self.flights: list[_Flight] = []
        self._predict_noise = predict_noise
        self._max_rows = max_rows
        self._observer = observer
        self._buffers: dict[tuple, _Buffers] = {}

    def join(self, flight: _Flight) -> None:
        self.flights.append(flight)
        self._tell(self._observer.in_flight, len(self.flights))

    def leave(self, flight: _Flight, result: np.ndarray | Exception) -> None:
        self.flights.remove(flight)
        if not any(other.shape == flight.shape for other in self.flights):
            self._buffers.pop(flight.shape, None)
        if not isinstance(result, Exception):
            self._tell(self._observer.finished)
        self._tell(flight.done, result)
        self._tell(self._observer.in_flight, len(self.flights))

    def tick(self) -> None:
        """One call for the images whose turn it is."""
        self._drop_unwanted()
        chosen, inputs = self._prepare(self._choose())
        if not chosen:
            return
        try:
            output = self._call(chosen, inputs)
        except Exception as error:
            for flight in chosen:
                self.leave(flight, error)
            return
        self._tell(self._observer.stepped, len(chosen))
        row = 0
        for flight in chosen:
            rows = output[row : row + flight.rows]
            row += flight.rows
            try:
                flight.image.advance(rows)
                result = flight.image.result() if flight.image.finished else None
            except Exception as error:
                result = error
            if result is not None:
                self.leave(flight, result)

    def _drop_unwanted(self) -> None:
        for flight in list(self.flights):
            try:
                flight.image.check_deadline()
                if flight.cancelled():
                    self.leave(flight, Cancelled("cancelled before the image was finished"))
            except Exception as error:
                self.leave(flight, error)

    def _choose(self) -> list[_Flight]:
        """The first image and those of its shape that fit; they go to the end of the order."""
        chosen: list[_Flight] = []
        others: list[_Flight] = []
        free = self._max_rows
        for flight in self.flights:
            if flight.shape == self.flights[0].shape and flight.rows <= free:
                chosen.append(flight)
                free -= flight.rows
            else:
                others.append(flight)
        self.flights = others + chosen
        return chosen

    def _prepare(self, chosen: list[_Flight]) -> tuple[list[_Flight], list[np.ndarray]]:
        """Those of `chosen` whose scheduler can say what the call takes, and what that is."""
        able, inputs = [], []
        for flight in chosen:
            try:
                inputs.append(flight.image.model_input())
                able.append(flight)
            except Exception as error:
                self.leave(flight, error)
        return able, inputs

    def _call(self, chosen: list[_Flight], inputs: list[np.ndarray]) -> np.ndarray:
        shape = chosen[0].shape
        if shape not in self._buffers:
            self._buffers[shape] = _Buffers(self._max_rows, *shape)
        arguments = self._buffers[shape].gather([flight.image for flight in chosen], inputs)
        now = time.monotonic()
        for flight in chosen:
            if flight.submitted is not None:
                self._tell(self._observer.queued, now - flight.submitted)
                flight.submitted = None
        sample = arguments[0]
        self._tell(self._observer.called, len(sample))
        output = np.asarray(self._predict_noise(*arguments), dtype=np.float32)
        if output.shape != sample.shape:
            raise RuntimeError(f"the UNet gave {list(output.shape)} for {list(sample.shape)}")
        return output

    def _tell(self, whom: Callable, *what: Any) -> None:
        """Call somebody else's function; what it raises is logged, and the loop goes on."""
        try:
            whom(*what)
        except Exception:
            logger.exception("%s failed", whom)


class _Buffers:
    """`predict_noise`'s arguments for one shape, kept from call to call to copy little."""

    def __init__(self, max_rows: int, latents: tuple[int, ...], embeds: tuple[int, ...]) -> None:
        self._sample = np.empty((max_rows, *latents), np.float32)
        self._timestep = np.empty(max_rows, np.float32)
        self._embeds = np.empty((max_rows, *embeds), np.float32)
        self._held: list[np.ndarray] = []
        self._given = self._embeds[:0]

    def gather(
        self, images: Sequence[Denoising], inputs: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`predict_noise`'s arguments for `images` and their model inputs, rows in that order."""
        row = 0
        for image, model_input in zip(images, inputs):
            self._sample[row : row + image.rows] = model_input
            self._timestep[row : row + image.rows] = image.timestep
            row += image.rows
        self._hold([embeds for image in images for embeds in image.embeds])
        return self._sample[:row], self._timestep[:row], self._given

    def _hold(self, rows: list[np.ndarray]) -> None:
        """Copy those text embeddings that do not stand in their row from the call before."""
        held = self._held
        changed = [at for at, row in enumerate(rows) if at >= len(held) or row is not held[at]]
        for at in changed:
            self._embeds[at] = rows[at]
        if changed or len(rows) != len(held):
            self._held = rows
            self._given = self._embeds[: len(rows)]
