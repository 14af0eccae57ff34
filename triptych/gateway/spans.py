"""The gateway in the trace of a request: a span of each request that has pictures drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from triptych import tracing


class Spans:
    """Makes them, and sends them to the collector."""

    def __init__(self) -> None:
        """Raises ImportError without the packages of the extra `tracing`."""
        self._provider = tracing.provider("triptych-gateway")
        self._tracer = self._provider.get_tracer("triptych")

    def begin(self, traceparent: str | None, begun: int) -> tuple[Span, str | None]:
        """The span of a request, and the traceparent of what the request leads to.

        It came at `begun`, as time.time_ns(). With None a new trace begins; one that is not sampled
        has no traceparent, but the one that was brought.
        """
        carrier = {"traceparent": traceparent} if traceparent else {}
        parent = TraceContextTextMapPropagator().extract(carrier)
        span = self._tracer.start_span("request", parent, kind=SpanKind.SERVER, start_time=begun)
        context = span.get_span_context()
        if not context.trace_flags.sampled:
            return span, traceparent
        ids = f"{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return span, f"00-{ids}"

    @staticmethod
    def end(span: Span, line: Mapping[str, Any], route: str) -> None:
        """End it with what the request's line in the access log says."""
        method, status = line["method"], line["status"]
        span.update_name(f"{method} {route}")
        told = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "triptych.request_id": line["request_id"],
            "triptych.model": line["model"],
            "triptych.pictures": line["pictures"],
        }
        span.set_attributes({name: value for name, value in told.items() if value is not None})
        if status is None or status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()
