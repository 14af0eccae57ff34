"""Requests without an answer: work ends with the client's connection, or with the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request

from triptych.gateway.errors import Problem


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, which is cancelled if the client closes its connection first.

    The request's body must have been read before. Raises Problem 499 where the client has left,
    which nobody receives.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Problem(499, "the client has left")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Unended:
    """ASGI middleware: 503 where the gateway's end cancels a request that has no answer yet.

    `respond` makes the answer of a request and a Problem.
    """

    def __init__(self, app: Any, respond: Callable[[Request, Problem], Any]) -> None:
        self._app = app
        self._respond = respond

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answered = False

        async def sent(message: Any) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            if scope["type"] != "http" or answered:
                raise
            problem = Problem(503, "the gateway has ended before the answer was there; ask again")
            await self._respond(Request(scope), problem)(scope, receive, send)
