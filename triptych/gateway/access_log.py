"""The access log: one line of JSON for each request, under an id that Triton is told too."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders

from triptych.gateway.keys import CALLER
from triptych.gateway.metrics import Metrics

MOST_PATH = 200
"""Characters of a path in a line."""

_ID = re.compile("[A-Za-z0-9_.:=@/+-]{1,128}")
_TRACE = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C's traceparent: https://www.w3.org/TR/trace-context/#traceparent-header."""

_OPENS = re.compile(r"^(/images/|/v1/images/generations/)[^/]+$")
"""A kept picture's address, or a job's, which opens it to whoever knows it: no log may have it."""

_FILES = "/web/"
"""The page's own: dozens at a visit, of which those that are not there alone have a line."""

log = logging.getLogger(__name__)


@dataclass
class Entry:
    """What is known of the request that is served; `drawn` what it had drawn, for its line.

    `client` is the address that it came from, as a trusted proxy says it. `spans` makes the
    request's `span`, once something is drawn for it, if requests are traced.
    """

    request_id: str
    traceparent: str | None = None
    client: str | None = None
    spans: Any = None
    span: Any = None
    begun: int = field(default_factory=time.time_ns)
    drawn: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Mapping[str, Any], spans: Any = None) -> Entry:
        """By the request's `x-request-id` and `traceparent`; what is none of these is not used."""
        headers, client = Headers(scope=scope), scope.get("client")
        request_id, trace = headers.get("x-request-id", ""), headers.get("traceparent", "")
        known = request_id if _ID.fullmatch(request_id) else secrets.token_hex(16)
        trace = trace if _TRACE.fullmatch(trace) else None
        return cls(known, trace, client and client[0], spans)

    @property
    def metadata(self) -> dict[str, str]:
        """For the gRPC calls that the request leads to."""
        return {"traceparent": self.traceparent} if self.traceparent else {}

    @property
    def ids(self) -> dict[str, str | None]:
        """For the lines of the log that it leads to."""
        trace = self.traceparent and self.traceparent.split("-")[1]
        return {"request_id": self.request_id, "trace_id": trace}

    def draws(self, asked: Sequence[Mapping[str, Any]]) -> None:
        """Note the pictures that are drawn for it, as `Studio.draw` has them."""
        prompts = list(dict.fromkeys(one["prompt"] for one in asked))
        self.drawn = {"model": asked[0]["model"], "pictures": len(asked), "prompts": prompts}
        if self.spans is not None and self.span is None:
            self.span, self.traceparent = self.spans.begin(self.traceparent, self.begun)


ENTRY: ContextVar[Entry | None] = ContextVar("entry", default=None)
"""That of the request which is served now; None outside of one."""


class AccessLog:
    """ASGI middleware: logs each request when its answer has ended, a stream's too, and counts it.

    Every answer gets the request's id as `x-request-id`.
    """

    def __init__(self, app: Any, prompts: bool, metrics: Metrics, spans: Any = None) -> None:
        """`prompts`: whether the lines have them. `spans`: a `Spans`, if requests are traced."""
        self._app = app
        self._prompts = prompts
        self._metrics = metrics
        self._spans = spans

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), None
        entry = Entry.of(scope, self._spans)
        ENTRY.set(entry)
        CALLER.set(None)

        async def told(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = entry.request_id
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, told)
        finally:
            self._metrics.in_flight.dec()
            seconds, route = time.monotonic() - begun, getattr(scope.get("route"), "path", "none")
            self._metrics.count(route, status or 499, seconds)
            if (caller := CALLER.get()) is not None:
                caller.answered(status)
            line = self._line(scope, entry, status)
            if status != 200 or not scope["path"].startswith(_FILES):
                write(line, seconds)
            if entry.span is not None:
                self._spans.end(entry.span, line, route)

    def _line(self, scope: Any, entry: Entry, status: int | None) -> dict[str, Any]:
        """A status is None where no answer was begun."""
        caller = CALLER.get()
        line = {
            "method": scope["method"],
            "path": _OPENS.sub(r"\1...", scope["path"])[:MOST_PATH],
            "status": status,
            "client": entry.client,
            "key": caller and caller.key.name,
            **entry.ids,
            **entry.drawn,
        }
        if not self._prompts:
            line.pop("prompts", None)
        return line


def write(line: Mapping[str, Any], seconds: float) -> None:
    """Log a line of what took so long, without what is None in it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, **line, "ms": round(1000 * seconds, 1)}
    log.info(json.dumps({name: value for name, value in line.items() if value is not None}))
