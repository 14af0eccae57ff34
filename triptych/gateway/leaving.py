"""The last moment before a gateway ends, in which clients learn that their connections do."""

from __future__ import annotations

from typing import Any

SECONDS = 1.0
"""How long it is. A kept connection that is closed loses a request that is on its way on it."""


class Leaving:
    """ASGI middleware: while `begun`, every answer is the last one on its connection."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.begun = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            if self.begun and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, told)
