"""Where the spans of this process go: to a collector, as OpenTelemetry's variables say."""

from __future__ import annotations

import os
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""The variables that name the collector."""


def is_wanted() -> bool:
    """Whether a collector is named."""
    return any(os.environ.get(name) for name in ENDPOINTS)


def provider(service: str) -> Any:
    """OpenTelemetry's TracerProvider, of a service by that name or by OTEL_SERVICE_NAME.

    Raises ImportError without the packages of the extra `tracing`, which nothing else needs.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", service)
    made = TracerProvider(resource=Resource.create({"service.name": name}))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made
