"""Jobs: pictures that are drawn while nobody waits for the answer, and their results."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, Literal

from starlette.exceptions import HTTPException

from triptych.client import ClientError, Overloaded, Picture
from triptych.gateway.errors import Problem, problem
from triptych.gateway.jobs import made
from triptych.gateway.keys import CALLER
from triptych.gateway.studio import Studio
from triptych.streaming import Step

SECONDS = 3600
"""How long a job is known after its end."""

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of pictures' files in all results, of which the oldest are dropped for new ones; and in all
requests of jobs that have not ended."""

MOST_OF_A_KEY = 64
"""Jobs that wait or are drawn, of one key, or of all callers where there are no keys."""

MOST = 256
"""Jobs that wait or are drawn, of all keys; and as many that have ended are known at most."""

AGAIN = 1.0
"""Seconds from one try to begin a job to the next, where there is no room."""

CLOSING = 5.0
"""Seconds that a closing gateway gives those who are being told of jobs' ends."""

State = Literal["queued", "running", "done", "failed", "cancelled"]
Finish = Callable[[Awaitable[list[Picture]]], Awaitable[Any]]
Tell = Callable[["Work"], Coroutine[Any, Any, None]]
log = logging.getLogger(__name__)


class Work:
    """One job. `result` is there in the state done, `error` in failed.

    `ended` is the time.monotonic() of its end, None before; `bytes` are those of its pictures,
    `brought` those of the files that it starts from.
    """

    def __init__(self, asked: Sequence[dict[str, Any]], tell: Tell | None) -> None:
        self.id = secrets.token_urlsafe(18)
        self.owner = _owner()
        self.created = int(time.time())
        self.state: State = "queued"
        self.steps: list[Step | None] = [None] * len(asked)
        self.result: Any = None
        self.error: HTTPException | None = None
        self.bytes = 0
        self.brought = sum(len(one) for one in asked[0].values() if isinstance(one, bytes))
        self.ended: float | None = None
        self.task: asyncio.Task | None = None
        self.tell = tell

    def progress(self) -> tuple[int, int]:
        """How many UNet calls are made of how many; 0 of 0 before the first one."""
        return made(self.steps)


class Background:
    """All jobs of a gateway, in the order they came; used in its event loop alone."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._works: dict[str, Work] = {}
        self._turns: dict[str | None, asyncio.Lock] = {}
        self._telling: dict[asyncio.Task, Work] = {}

    def begin(
        self, asked: Sequence[dict[str, Any]], finish: Finish, tell: Tell | None = None
    ) -> Work:
        """A job for `asked`, as `Studio.draw` takes it, which is drawn when its turn comes.

        `finish` makes its result of the awaited pictures; `tell` is run with the job once it has
        ended. The jobs of one key begin in the order in which they came. Raises Problem 429 where
        too many jobs have not ended, or are not told of, yet, or have brought too large files.
        """
        waiting = [one for one in self._works.values() if one.ended is None]
        owners = [one.owner for one in (*waiting, *self._telling.values())]
        work = Work(asked, tell)
        if owners.count(work.owner) >= MOST_OF_A_KEY or len(owners) >= MOST:
            raise Problem(429, f"{len(owners)} jobs have not ended yet; try later")
        if work.brought and sum(one.brought for one in (*waiting, work)) > MAX_BYTES:
            raise Problem(429, "the pictures of jobs that have not ended are too many; try later")
        self._works[work.id] = work
        work.task = asyncio.create_task(self._run(work, asked, finish))
        return work

    def get(self, id: str) -> Work:
        """The job of that id, if it is the caller's; else Problem 404."""
        self._forget()
        work = self._works.get(id)
        if work is None or work.owner != _owner():
            raise Problem(404, "there is no such job, or it ended more than an hour ago")
        return work

    def place(self, work: Work) -> int | None:
        """Its place among all jobs that wait for their first step, 1 for the first of them."""
        queued = [one for one in self._works.values() if one.state == "queued"]
        return queued.index(work) + 1 if work in queued else None

    def cancel(self, work: Work) -> None:
        """Give it up, unless it has ended."""
        if work.ended is None:
            self._end(work, "cancelled")
            work.task.cancel()

    async def close(self) -> None:
        """Cancel all that has not ended, and stop telling of jobs in CLOSING."""
        works = [work for work in self._works.values() if work.ended is None]
        for work in works:
            self.cancel(work)
        await asyncio.gather(*(work.task for work in works), return_exceptions=True)
        telling = list(self._telling)
        if telling:
            await asyncio.wait(telling, timeout=CLOSING)
        for task in telling:
            task.cancel()
        await asyncio.gather(*telling, return_exceptions=True)

    async def _run(self, work: Work, asked: Sequence[dict[str, Any]], finish: Finish) -> None:
        """Draw a job and keep what came of it."""
        try:
            work.result = await finish(self._drawn(work, asked))
        except (ClientError, HTTPException) as error:
            work.error = problem(error) if isinstance(error, ClientError) else error
        except Exception:
            log.exception("a job failed")
            work.error = Problem(500, "the gateway failed; its log says why")
        self._end(work, "done" if work.error is None else "failed")
        self._forget()

    def _end(self, work: Work, state: State) -> None:
        """Have it be in that state, which is the last one, and be told of."""
        work.state, work.ended = state, time.monotonic()
        tell, work.tell = work.tell, None  # it may hold the request's body
        if tell is not None:
            telling = asyncio.create_task(tell(work))
            self._telling[telling] = work
            telling.add_done_callback(self._telling.pop)

    async def _drawn(self, work: Work, asked: Sequence[dict[str, Any]]) -> list[Picture]:
        """The pictures of a job, which begins as soon as there is room for it."""
        turn = self._turns.setdefault(work.owner, asyncio.Lock())
        with ExitStack() as stack:
            await turn.acquire()
            stack.callback(turn.release)

            def watch(number: int, step: Step) -> None:
                if work.ended is None:
                    work.state, work.steps[number] = "running", step
                stack.close()  # the next one's turn

            while True:
                try:
                    pictures = await self._studio.draw(asked, watch, job=True)
                except Overloaded:
                    work.state, work.steps = "queued", [None] * len(asked)
                    await asyncio.sleep(AGAIN)
                else:
                    work.bytes = sum(len(picture.file) for picture in pictures)
                    return pictures

    def _forget(self) -> None:
        """Drop ended jobs, the oldest first, while they are too many, too large or too old."""
        ended = [work for work in self._works.values() if work.ended is not None]
        ended.sort(key=lambda work: work.ended)
        size, oldest = sum(work.bytes for work in ended), time.monotonic() - SECONDS
        for number, work in enumerate(ended):
            if len(ended) - number <= MOST and size <= MAX_BYTES and work.ended >= oldest:
                return
            size -= work.bytes
            del self._works[work.id]


def _owner() -> str | None:
    """The name of the caller's key."""
    caller = CALLER.get()
    return caller and caller.key.name
