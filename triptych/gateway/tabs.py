"""The pictures that the page's tabs have on their way, with one stream of news for each tab.

A browser opens six connections to an address, so that a stream for each picture would fill them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

from triptych.client import ClientError, Picture
from triptych.gateway.errors import Problem, problem
from triptych.gateway.keys import CALLER
from triptych.streaming import Step

GRACE = 10.0
"""Seconds in which a tab that nobody reads for may come back for its pictures."""

STALLED = 60.0
"""Seconds in which a reader has to take what it is sent, a picture at most."""

BEAT = 5.0
"""Seconds without news after which a reader is sent something all the same."""

MAX_BYTES = 128 * 1024 * 1024
"""Bytes of all tabs: of the files that pictures on their way start from, which are in memory about
four times, and of those that are drawn and that no tab has read yet."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """A picture waits for its first step; `place` is 1 if it is the next in turn."""

    place: int


News = Step | Waiting | Picture | Problem
Tell = Callable[[Step | Waiting], None]


class _Drawing:
    """A picture on its way. `news` has what a new reader needs: the newest, with its number, and
    before it the step of the newest preview."""

    def __init__(self, brought: int) -> None:
        self.bytes = brought
        self.news: list[tuple[int, News]] = []
        self.begun = asyncio.Event()
        self.is_answered = False  # the request that began it
        self.task: asyncio.Task | None = None

    def add(self, number: int, news: News) -> None:
        keeps = isinstance(news, Step) and not news.preview
        previews = [one for one in self.news if isinstance(one[1], Step) and one[1].preview]
        self.news = [*(previews if keeps else ()), (number, news)]
        self.begun.set()
        if isinstance(news, (Picture, Problem)):
            self.bytes = len(news.file) if isinstance(news, Picture) else 0


class Tab:
    """The pictures of one tab, by the ids that it gave them; used in the event loop alone.

    They are given up where nobody has read their news, or begun another one, for GRACE.
    """

    def __init__(self, failed: Callable[[int], None]) -> None:
        """`failed`: told the status with which a picture failed after its request's answer."""
        self._failed = failed
        self._drawings: dict[str, _Drawing] = {}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()
        self._reader: object | None = None
        self._grace: asyncio.TimerHandle | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the files that it holds."""
        return sum(drawing.bytes for drawing in self._drawings.values())

    def goes_on(self, id: str) -> bool:
        """Whether a picture is on its way; its tab is waited for, and told how far it is, anew."""
        if self._reader is None:
            self._wait()
        drawing = self._drawings.get(id)
        if drawing is not None:
            drawing.news = [(next(self._numbers), news) for _, news in drawing.news]
            self._changed.set()
        return drawing is not None

    def begin(self, id: str, draw: Callable[[Tell], Awaitable[Picture]], brought: int) -> None:
        """Have a picture be on its way, as `draw` draws it, from files of `brought` bytes."""
        drawing = self._drawings[id] = _Drawing(brought)
        drawing.task = asyncio.create_task(self._follow(drawing, draw))

    async def first(self, id: str) -> None:
        """Return as soon as there is news of a picture; raises the Problem that it ended with."""
        drawing = self._drawings[id]
        await drawing.begun.wait()
        _, news = drawing.news[-1]
        if isinstance(news, Problem):
            self._drop(id, drawing)
            raise news
        drawing.is_answered = True

    def cancel(self, id: str) -> None:
        """Give a picture up, if it is there."""
        drawing = self._drawings.pop(id, None)
        if drawing is not None:
            drawing.task.cancel()
            self._tell(drawing, Problem(499, "the picture was given up"))

    def give_up(self) -> list[asyncio.Task]:
        """Give all up; their work, which then ends."""
        tasks = [drawing.task for drawing in self._drawings.values()]
        for id in list(self._drawings):
            self.cancel(id)
        return tasks

    async def read(self) -> AsyncIterator[tuple[str, News] | None]:
        """News with the picture's id, until no picture is on its way, or another reader comes.

        First how far each is. None after BEAT without any. A slow reader misses steps, and previews
        but the newest; for one that is STALLED all are given up. What ended is forgotten once it is
        read.
        """
        reader = self._reader = object()
        self._changed.set()
        if self._grace is not None:
            self._grace.cancel()
        seen = 0
        try:
            while self._reader is reader:
                self._changed.clear()
                for number, id, drawing, news in self._since(seen):
                    stalled = asyncio.get_running_loop().call_later(STALLED, self.give_up)
                    try:
                        yield id, news
                    finally:
                        stalled.cancel()
                    if self._reader is not reader:
                        return
                    seen = number
                    if isinstance(news, (Picture, Problem)):
                        self._drop(id, drawing)
                if not self._drawings:
                    return
                try:
                    await asyncio.wait_for(self._changed.wait(), BEAT)
                except TimeoutError:
                    yield None
        finally:
            if self._reader is reader:
                self._reader = None
                self._wait()

    async def _follow(self, drawing: _Drawing, draw: Callable[[Tell], Awaitable[Picture]]) -> None:
        try:
            self._tell(drawing, await draw(partial(self._tell, drawing)))
        except ClientError as error:
            self._fail(drawing, problem(error))
        except Exception:
            log.exception("a picture failed")
            self._fail(drawing, Problem(500, "the gateway failed; its log says why"))

    def _fail(self, drawing: _Drawing, told: Problem) -> None:
        if drawing.is_answered and told.status_code >= 500:
            log.warning("a picture failed on its way: %s", told.detail)
            self._failed(told.status_code)
        self._tell(drawing, told)

    def _tell(self, drawing: _Drawing, news: News) -> None:
        drawing.add(next(self._numbers), news)
        self._changed.set()

    def _since(self, seen: int) -> list[tuple[int, str, _Drawing, News]]:
        """What has a number after `seen`, in order; no two have the same."""
        return sorted(
            (number, id, drawing, news)
            for id, drawing in self._drawings.items()
            for number, news in drawing.news
            if number > seen
        )

    def _drop(self, id: str, drawing: _Drawing) -> None:
        """Forget it, unless another one has its id by now."""
        if self._drawings.get(id) is drawing:
            del self._drawings[id]
            self._changed.set()

    def _wait(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._grace = asyncio.get_running_loop().call_later(GRACE, self.give_up)


class Tabs:
    """All tabs, each its caller's; one is there while it has work, a reader or GRACE."""

    def __init__(self, failed: Callable[[int], None]) -> None:
        """`failed` as a Tab takes it."""
        self._failed = failed
        self._tabs: WeakValueDictionary[tuple[str | None, str], Tab] = WeakValueDictionary()

    def tab(self, name: str) -> Tab:
        """The caller's tab of that name."""
        caller = CALLER.get()
        return self._tabs.setdefault((caller and caller.key.name, name), Tab(self._failed))

    def check_room(self, brought: int) -> None:
        """Raise Problem 429 where the tabs hold too much for files of `brought` bytes more."""
        if sum(tab.bytes for tab in list(self._tabs.values())) + brought > MAX_BYTES:
            raise Problem(
                429, "pictures on their way or not read yet are too many bytes; try later"
            )

    async def close(self) -> None:
        """Give up all that is on its way."""
        tasks = [task for tab in list(self._tabs.values()) for task in tab.give_up()]
        await asyncio.gather(*tasks, return_exceptions=True)
