"""How many images are between the tokenizer and the end, known before one more is let in.

The stages tell it in their activity files. An image also waits where no stage sees it, in Triton's
own queues before a network, so that totals of what came and went are compared.
"""

from __future__ import annotations

import time
from collections import deque

from triptych.errors import InvalidRequest, Unavailable
from triptych.ipc.activity import Activity, Instances, Seen
from triptych.names import PATH, Names


class Admission:
    """The tokenizer's gate: lets as many images in as unet_loop's `max_queue` allows.

    unet_loop refuses too, whoever calls it; but where the text encoder or the VAE is the slowest
    stage, images queue there without end. Without a launcher there are no counts, and the gate is
    open.
    """

    def __init__(self, activity: Activity, names: Names) -> None:
        """`names`: of the model whose images are counted; each model has a gate of its own."""
        self._loop = names.stage("unet_loop")
        self._models = [Instances(activity.folder, names.stage(stage)) for stage in PATH]
        self._before, self._behind = Between(), Between()

    def check(self, images: int) -> None:
        """Raise Unavailable if so many more do not fit now, InvalidRequest if they never do."""
        tokenizer, *encoders, loop, decoder, end = (model.see() for model in self._models)
        if not loop.limit:
            return
        before = self._before.count(tokenizer.went, loop.came, encoders)
        behind = self._behind.count(loop.went, end.came, [decoder, end])
        held = before + (loop.came - loop.went - loop.failed) + behind
        check_room("INPUT_0", images, held, loop.limit, self._loop)


def check_room(tensor: str, images: int, held: int, most: int, loop: str) -> None:
    """Raise unless so many more images fit beside those `held`, `most` of them in all.

    `loop` is the served model whose `max_queue` that is.

    InvalidRequest about the batch of `tensor` where they would not fit even alone, else
    Unavailable.
    """
    if images > most:
        allowed = f"a batch of at most {most}, the max_queue of {loop}"
        raise InvalidRequest(tensor, (images, 1), allowed)
    if held + images > most:
        raise Unavailable(f"the queue is full: {held} of {most} images; try later")


class Between:
    """Counts the images between two stages: those that went from the one and have not come yet.

    Some never come: they failed in between, or a stage was called alone. So those that went some
    time ago are forgotten when the stages between have no work.
    """

    IDLE = 0.05
    """Seconds without work after which no image is on its way to the next stage."""

    def __init__(self) -> None:
        self._since: deque[float] = deque()
        self._went = self._came = 0

    def count(self, went: int, came: int, between: list[Seen]) -> int:
        """How many there are. `went` and `came` are totals, `between` the stages between."""
        now = time.monotonic()
        self._since.extend([now] * (went - self._went))
        arrived = came - self._came
        self._went, self._came = went, came
        for _ in range(min(arrived, len(self._since))):
            self._since.popleft()
        if all(not stage.count and now - stage.ended > self.IDLE for stage in between):
            while self._since and now - self._since[0] > self.IDLE:
                self._since.popleft()
        return len(self._since)
