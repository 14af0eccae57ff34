"""The progress of txt2img requests: a client of the WebUI asks for it in another request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from triptych.client import GivenUp
from triptych.gateway.keys import CALLER
from triptych.streaming import Step


@dataclass(frozen=True)
class Now:
    """The progress of a caller's jobs together.

    `pictures`: how many are drawn. `step` of `total` UNet calls are made, both 0 before the first
    one. `begun`: when the oldest job began, as time.time(), 0 without a job. `seconds_left`: an
    estimate by the calls so far. `preview`: the newest PNG of a preview.
    """

    pictures: int
    step: int
    total: int
    begun: float
    seconds_left: float
    preview: bytes | None
    interrupted: bool


class Job:
    """One request to txt2img; `steps` has each picture's newest Step, None before its first."""

    def __init__(self, pictures: int) -> None:
        self.caller = CALLER.get()
        self.begun = time.time()
        self.steps: list[Step | None] = [None] * pictures
        self.preview: bytes | None = None
        self.interrupted = False
        self._drawing: asyncio.Future | None = None

    def watch(self, number: int, step: Step) -> None:
        """Keep a Step of the picture of this number, and its preview if it has one."""
        self.steps[number] = step
        self.preview = step.preview or self.preview

    async def interruptible(self, drawing: Coroutine[Any, Any, Any]) -> Any:
        """What `drawing` gives; GivenUp if the job is interrupted meanwhile."""
        self._drawing = asyncio.ensure_future(drawing)
        try:
            return await self._drawing
        except asyncio.CancelledError:
            if not self.interrupted:
                self._drawing.cancel()
                raise
            raise GivenUp("interrupted") from None

    def interrupt(self) -> None:
        """Cancel the drawing: `interruptible` raises GivenUp."""
        self.interrupted = True
        if self._drawing is not None:
            self._drawing.cancel()


def made(steps: Sequence[Step | None]) -> tuple[int, int]:
    """How many UNet calls are made of how many, by the newest Step of each picture, if any."""
    known = [step for step in steps if step is not None]
    total = max((step.total for step in known), default=0) * len(steps)
    return min(sum(step.step for step in known), total), total


class Jobs:
    """All jobs of a gateway; where there are keys by name, a caller sees those of its key alone."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    @contextmanager
    def begin(self, pictures: int) -> Iterator[Job]:
        """A new job, listed here until the `with` block ends."""
        job = Job(pictures)
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)

    def interrupt(self) -> None:
        """Interrupt every job of the caller."""
        for job in self._own():
            job.interrupt()

    def now(self) -> Now:
        """The progress of the caller's jobs together, all zero without any."""
        jobs = self._own()
        steps = [step for job in jobs for step in job.steps]
        step, total = made(steps)
        begun = min((job.begun for job in jobs), default=0.0)
        previews = [job.preview for job in jobs if job.preview]
        return Now(
            pictures=len(steps),
            step=step,
            total=total,
            begun=begun,
            seconds_left=(time.time() - begun) * (total - step) / step if step else 0.0,
            preview=previews[-1] if previews else None,
            interrupted=any(job.interrupted for job in jobs),
        )

    def _own(self) -> list[Job]:
        return [job for job in self._jobs if job.caller is CALLER.get()]
