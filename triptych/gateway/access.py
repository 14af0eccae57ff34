"""Who may ask, and how much at once: a key, a bound on a request's length, known host names."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from triptych.errors import shorten
from triptych.gateway.errors import Problem
from triptych.gateway.keys import CALLER

MAX_BODY = 1024 * 1024
"""Bytes of a request's body."""

MAX_FILE_BODY = 32 * 1024 * 1024
"""Bytes of a body that holds pictures: base64 of two of the largest that a server takes by itself,
and more."""

MAX_BODIES = 4 * MAX_FILE_BODY
"""Bytes of the bodies of all requests that are not answered: each is in memory about four times."""

STALLED = 60.0
"""Seconds without a byte after which the rest of a body is not awaited any more: a client that has
vanished ends no connection, and what it has sent would count among MAX_BODIES for good."""

FILES = (
    *("/sdapi/v1/png-info", "/sdapi/v1/img2img", "/api/settings", "/api/picture"),
    *(f"{prefix}/images/{kind}" for prefix in ("/v1", "") for kind in ("edits", "variations")),
)
"""The paths at which a body holds pictures."""

_bearer = HTTPBearer(auto_error=False, description="The gateway's key, if it has one")


async def require_key(request: Request, _: Annotated[object, Depends(_bearer)] = None) -> None:
    """A dependency: Problem 401 unless the request brings a key, where the gateway asks for one.

    As `Authorization: Bearer KEY`, or, as clients of the WebUI do, as the password of Basic.
    """
    key, keys = request.app.state.api_key, request.app.state.keys
    if key is None and keys is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        given = _password(given)
    elif scheme.lower() != "bearer":
        given = ""
    if keys is not None:
        CALLER.set(keys.caller(given))
        known = CALLER.get() is not None
    else:
        known = secrets.compare_digest(given.encode(), key.encode())
    if not known:
        raise Problem(401, "a key is needed: Authorization: Bearer KEY")


class KeyFirst(APIRoute):
    """A route of `require_key` that asks before it reads the body, which may be large."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Any:
            await require_key(request)
            return await handle(request)

        return handler


def _password(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def check_origin(request: Request) -> None:
    """Problem 400 for a request that a browser sends for a page elsewhere.

    For bodies that browsers send without leave to read the answer: forms. The origins that
    `--cors-origin` names may send them.
    """
    origin = request.headers.get("origin")
    own = (request.headers.get("host"), *request.app.state.origins)
    if origin is not None and origin not in own and _host(origin) not in own:
        allowed = "a page of this server; others by --cors-origin"
        raise Problem(400, f"Origin: got {shorten(origin)}; allowed: {allowed}", "Origin")


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as a bracket that is not closed
        return None


class KnownHosts:
    """ASGI middleware: 400 for a request that calls this server by a name that is not in `hosts`.

    So a page elsewhere cannot reach it through a name of its own that leads here. `respond` makes
    the answer of a request and a Problem.
    """

    def __init__(
        self, app: Any, hosts: Sequence[str], respond: Callable[[Request, Problem], Any]
    ) -> None:
        self._app = app
        self._hosts = [host.lower() for host in hosts]
        self._respond = respond

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self._app
        if scope["type"] in ("http", "websocket"):
            request = Request(scope)
            name = request.headers.get("host", "")
            if re.sub(r":[0-9]*$", "", name).lower() not in self._hosts:
                allowed = f"{', '.join(self._hosts)}; others by --allow-host"
                problem = Problem(400, f"Host: got {shorten(name)}; allowed: {allowed}", "Host")
                app = self._respond(request, problem)
        await app(scope, receive, send)


class BoundedBody:
    """ASGI middleware: 413 for a body that is too long, however it is sent.

    429 where all bodies of requests that are not answered would be too long together, 408 for one
    whose rest does not come.
    """

    def __init__(self, app) -> None:
        self._app = app
        self._held = 0

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received, most = 0, MAX_FILE_BODY if scope["path"] in FILES else MAX_BODY
        is_whole = False

        async def bounded():
            nonlocal received, is_whole
            try:
                async with asyncio.timeout(None if is_whole else STALLED):
                    message = await receive()
            except TimeoutError:
                problem = Problem(408, f"the rest of the body has not come for {STALLED:g} s")
                problem.headers["Connection"] = "close"
                raise problem from None
            is_whole = not message.get("more_body", False)
            size = len(message.get("body", b""))
            received += size
            self._held += size
            if received > most:
                raise Problem(413, f"the request's body has more than {most} bytes")
            if size and self._held > MAX_BODIES:
                raise Problem(429, "too many bytes of pictures are being drawn from; try later")
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            self._held -= received
