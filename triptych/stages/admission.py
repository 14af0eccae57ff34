"""How many images are between the tokenizer and the end, known before one more is let in.

The stages tell it in their activity files. An image waits also where no stage sees it, in Triton's
own queues before a network, so that counts of what came and went are compared.
"""

from __future__ import annotations

import time
from collections import deque

from triptych.errors import Unavailable
from triptych.ipc.activity import Activity, Seen, Watched


class Admission:
    """The tokenizer's gate, as wide as unet_loop's `max_queue`; open where there is no launcher.

    A refusal here is at once; unet_loop's own, which holds for whoever calls it alone, comes behind
    the text encoder's queue.
    """

    def __init__(self, activity: Activity) -> None:
        self._own = activity
        names = ("text_encoder", "unet_loop", "vae_decoder", "image_encoder")
        self._stages = [Watched(activity.folder, name) for name in names]
        self._before, self._behind = Between(), Between()

    def check(self, images: int) -> None:
        """Raise Unavailable if so many more do not fit."""
        encoder, loop, decoder, end = (stage.see() for stage in self._stages)
        if not loop.limit:
            return
        before = self._before.count(self._own.went, loop.came, [encoder])
        behind = self._behind.count(loop.went, end.came, [decoder, end])
        held = before + (loop.came - loop.went - loop.failed) + behind
        if held + images > loop.limit:
            raise Unavailable(f"the queue is full: {held} of {loop.limit} images; try later")


class Between:
    """The images between two stages: how many went from the one and have not come to the other.

    Some never come: they failed in between, or the stages are called alone. So those are forgotten
    for which the stages between have no work.
    """

    IDLE = 0.05
    """Seconds without work after which nothing is on its way to a stage."""

    def __init__(self) -> None:
        self._since: deque[float] = deque()
        self._went = self._came = 0

    def count(self, went: int, came: int, between: list[Seen]) -> int:
        """`went` and `came` are totals since the stages' start."""
        now = time.monotonic()
        # A stage that was loaded again counts from 0.
        self._since.extend([now] * (went - self._went if went >= self._went else went))
        arrived = came - self._came if came >= self._came else came
        self._went, self._came = went, came
        for _ in range(min(arrived, len(self._since))):
            self._since.popleft()
        if all(not stage.count and now - stage.ended > self.IDLE for stage in between):
            while self._since and now - self._since[0] > self.IDLE:
                self._since.popleft()
        return len(self._since)
