"""The spans that OpenTelemetry's exporters post to a Receiver: Triton's in JSON, Python's not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.gateway.receiver import Receiver


@dataclass(frozen=True)
class Span:
    """Ids are in hexadecimal, `parent` is empty without one; `links` has ids of other spans.

    `begun` and `ended` are in nanoseconds; `error` is what failed, None if nothing did.
    """

    name: str
    trace: str
    id: str
    parent: str
    begun: int
    ended: int
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    error: str | None


def spans(receiver: Receiver) -> Iterator[Span]:
    """All that have come so far."""
    for _, headers, body in list(receiver.came):
        if headers["content-type"].startswith("application/json"):
            yield from _spans(json.loads(body), str.lower)
        else:
            told = MessageToDict(ExportTraceServiceRequest.FromString(body))
            yield from _spans(told, lambda text: base64.b64decode(text).hex())


def _spans(told: Mapping[str, Any], number: Callable[[str], str]) -> Iterator[Span]:
    """`number` makes an id in hexadecimal of one in the text."""
    for resource in told["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for one in scope["spans"]:
                status = one.get("status", {})
                yield Span(
                    one["name"],
                    number(one["traceId"]),
                    number(one["spanId"]),
                    number(one.get("parentSpanId", "")),
                    int(one["startTimeUnixNano"]),
                    int(one["endTimeUnixNano"]),
                    {each["key"]: _value(each["value"]) for each in one.get("attributes", ())},
                    tuple(number(each["spanId"]) for each in one.get("links", ())),
                    status.get("message", "") if "ERROR" in str(status.get("code")) else None,
                )


def _value(told: Mapping[str, Any]) -> Any:
    ((kind, value),) = told.items()
    return int(value) if kind == "intValue" else value
