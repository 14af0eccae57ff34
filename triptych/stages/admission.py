"""How many images are between the tokenizer and the end, known before one more is let in.

The stages tell it in their activity files. An image also waits where no stage sees it, in Triton's
own queues before a network: those that went from one stage and have not come to the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

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
        for model in self._models:  # what was before this gate is not its own
            model.news()

    def check(self, images: int) -> None:
        """Raise Unavailable if so many more do not fit now, InvalidRequest if they never do."""
        # From the end on, as what has come to a stage has been told of by the one before.
        end, decoder, loop, *encoders, tokenizer = (model.news() for model in self._models[::-1])
        before = self._before.count(tokenizer.went, loop.came, [one.seen for one in encoders])
        behind = self._behind.count(loop.went, end.came, [decoder.seen, end.seen])
        seen = loop.seen
        if seen.limit:
            held = before + (seen.came - seen.went - seen.failed) + behind
            check_room("INPUT_0", images, held, seen.limit, self._loop)


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

    Some never come: they failed in between, or a stage was called alone. They are forgotten when
    an image has come that went some time after them, as images keep their order there, and when the
    stages between have no work.
    """

    OVERTAKEN = 1.0
    """Seconds after which an image that went later and has come shows that one never will."""

    IDLE = 0.05
    """Seconds without work after which no image is on its way to the next stage."""

    def __init__(self) -> None:
        self._since: list[tuple[float, int]] = []

    def count(self, went: Sequence[int], came: Sequence[int], between: Sequence[Seen]) -> int:
        """How many there are.

        `went` and `came`: which images did since this was last asked. `between`: the stages there.
        """
        now, newest = time.monotonic(), -math.inf
        self._since += [(now, image) for image in went]
        for image in came:
            found = next((one for one in self._since if one[1] == image), None)
            if found is not None:
                self._since.remove(found)
                newest = max(newest, found[0])
        oldest = newest - self.OVERTAKEN
        if all(not stage.count and now - stage.ended > self.IDLE for stage in between):
            oldest = max(oldest, now - self.IDLE)
        self._since = [one for one in self._since if one[0] >= oldest]
        return len(self._since)
