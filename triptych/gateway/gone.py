"""Work for a client that may leave before it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import Request

from triptych.gateway.errors import Problem


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` gives; it is cancelled when the client closes its connection.

    The request's body must have been read. Problem 499 then, which nobody sees.
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
