"""The progress of txt2img requests: a client of the WebUI asks for it in another request."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from triptych.client import GivenUp
from triptych.gateway.access_log import ENTRY
from triptych.gateway.keys import CALLER
from triptych.streaming import Step

MOST_ENDED = 64
"""Tasks that are known to have ended."""


@dataclass(frozen=True)
class Now:
    """The progress of some jobs together.

    `pictures`: how many are drawn. `step` of `total` UNet calls are made, both 0 before the first
    one. `begun`: when the oldest job began, as time.time(), 0 without a job. `seconds_left`: an
    estimate by the calls so far. `preview`: the newest PNG of a preview, `previews` how many came.
    """

    pictures: int
    step: int
    total: int
    begun: float
    seconds_left: float
    preview: bytes | None
    previews: int
    interrupted: bool

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.step / self.total if self.total else 0.0


class Named(NamedTuple):
    """What is kept of a job that has ended."""

    caller: object
    task: str


class Job:
    """One request to txt2img; `steps` has each picture's newest Step, None before its first."""

    def __init__(self, pictures: int, task: str | None) -> None:
        """`task`: what the caller calls it, if anything."""
        self.caller, self.task = caller(), task
        self.begun = time.time()
        self.steps: list[Step | None] = [None] * pictures
        self.preview: bytes | None = None
        self.previews = 0
        self.interrupted = False
        self._drawing: asyncio.Future | None = None

    def watch(self, number: int, step: Step) -> None:
        """Keep a Step of the picture of this number, and its preview if it has one."""
        self.steps[number] = step
        if step.preview:
            self.preview = step.preview
            self.previews += 1

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


Meant = TypeVar("Meant", Job, Named)


class Jobs:
    """All jobs of a gateway, each its caller's: of a key by name, else of a client's address.

    Where there are no keys by name, whoever knows a job's task may ask for it.
    """

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._ended: deque[Named] = deque(maxlen=MOST_ENDED)

    @contextmanager
    def begin(self, pictures: int, task: str | None = None) -> Iterator[Job]:
        """A new job, listed here until the `with` block ends."""
        job = Job(pictures, task)
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)
            if task is not None:
                self._ended.append(Named(job.caller, job.task))

    def interrupt(self) -> None:
        """Interrupt every job of the caller."""
        for job in self._meant(self._jobs, None):
            job.interrupt()

    def has_ended(self, task: str) -> bool:
        """Whether a job of that task has ended lately."""
        return bool(self._meant(self._ended, task))

    def now(self, task: str | None = None) -> Now:
        """The progress of the caller's jobs together, or of a task's, all zero without any."""
        jobs = self._meant(self._jobs, task)
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
            previews=sum(job.previews for job in jobs),
            interrupted=any(job.interrupted for job in jobs),
        )

    @staticmethod
    def _meant(jobs: Iterable[Meant], task: str | None) -> list[Meant]:
        if task is None:
            return [job for job in jobs if job.caller == caller()]
        named = [job for job in jobs if job.task == task]
        return [job for job in named if CALLER.get() is None or job.caller == caller()]


def caller() -> object:
    """Who asks: the caller of a key, else the client's address."""
    entry = ENTRY.get()
    return CALLER.get() or (entry and entry.client)
