"""Who waits for the images in flight: whether still, and with which of them done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from triptych.errors import Unavailable
from triptych.stages import triton
from triptych.stages.reply import Reply


class Cancellations:
    """Which of the requests in flight were given up, asked beside the loop's thread.

    Answers them itself if another stage's process dies: a call of the UNet then has no end.
    """

    INTERVAL = 0.01
    """Seconds from one round to the next, at least."""

    SHARE = 0.2
    """Of its thread's time that the rounds take: each question takes 0.1 ms."""

    LONGEST = 0.2
    """Seconds from one round to the next, at most: whoever lost a stage is told in time."""

    def __init__(self, model: triton.Model) -> None:
        self._model = model
        self._condition = threading.Condition()
        self._replies: list[Reply] = []
        self._given_up: set[Reply] = set()
        self._closed = False
        threading.Thread(target=self._run, name="cancellations", daemon=True).start()

    def watch(self, reply: Reply) -> Callable[[], bool]:
        """Watch until `reply` is sent; the result says at no cost whether it was given up."""
        with self._condition:
            self._replies.append(reply)
            self._condition.notify()
        return lambda: reply in self._given_up

    def close(self) -> None:
        """End the thread after its round."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._replies = [reply for reply in self._replies if not reply.sent]
                self._given_up.intersection_update(self._replies)
                self._condition.wait_for(lambda: self._replies or self._closed)
                if self._closed:
                    return
                replies = list(self._replies)
            begun = time.monotonic()
            try:
                self._model.activity.check_whole()
            except Unavailable as error:
                for reply in replies:
                    reply.send(self._model.response(error))
            self._given_up.update(reply for reply in replies if reply.cancelled())
            took = time.monotonic() - begun
            time.sleep(min(self.LONGEST, max(self.INTERVAL, took * (1 / self.SHARE - 1))))


class Results:
    """Collects what the loop gives for the images of one request, and calls `answer` once.

    It gets the latents in the images' order when all are done, or the first exception.
    """

    def __init__(self, images: int, answer: Callable[[Any], None]) -> None:
        self._latents: list[Any] = [None] * images
        self._left = images
        self._answer = answer
        self._lock = threading.Lock()
        self.answered = False

    def of(self, position: int) -> Callable[[np.ndarray | Exception], None]:
        """The loop's `done` for the image at `position`."""

        def done(result: np.ndarray | Exception) -> None:
            with self._lock:
                self._left -= 1
                failed = isinstance(result, Exception)
                if not failed:
                    self._latents[position] = result
                if self.answered or not (failed or self._left == 0):
                    return
                self.answered = True
            self._answer(result if failed else self._latents)

        return done
