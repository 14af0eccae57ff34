"""What the gateway counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import HTTPServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)
"""The bounds of the histogram of answers' times."""


FAILURES = (500, 503, 504)
"""Statuses that are counted from 0 on: to Prometheus a series that begins with 1 has not grown."""


PATIENCE = 10
"""Seconds that the page's own port waits for a request."""

disable_created_metrics()


class Metrics:
    """Requests, by route and status; `in_flight` is how many have no whole answer yet."""

    def __init__(self, routes: Iterable[str]) -> None:
        """`routes`: all that there are."""
        name, own = "triptych_gateway_request", CollectorRegistry()
        self.registry = own
        self.in_flight = Gauge(f"{name}s_in_flight", "without a whole answer", registry=own)
        self._answers = Counter(f"{name}s", "answered", ["route", "code"], registry=own)
        self._seconds = Histogram(
            f"{name}_seconds", "until the whole answer", ["route"], registry=own, buckets=SECONDS
        )
        for route in routes:
            for status in FAILURES:
                self._answers.labels(route, status)

    def failed(self, route: str, status: int) -> None:
        """What a request began, and was answered before, has failed like an answer of a status."""
        self._answers.labels(route, status).inc()

    def count(self, route: str, status: int, seconds: float) -> None:
        """An answer has ended, which took so long."""
        self._answers.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)


@dataclass(frozen=True)
class Counts:
    """Pictures `drawn` and being drawn, and requests that were `refused`, by their status."""

    drawn: int
    drawing: int
    refused: Mapping[int, int]


class Pictures(Collector):
    """The Counts of each key by its name; those of all have no name."""

    def __init__(self, counts: Callable[[], Mapping[str, Counts]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        name = "triptych_gateway_"
        drawn = CounterMetricFamily(f"{name}pictures", "drawn", labels=["name"])
        drawing = GaugeMetricFamily(f"{name}pictures_in_flight", "being drawn", labels=["name"])
        refused = CounterMetricFamily(f"{name}refused", "requests", labels=["name", "code"])
        for key, counts in self._counts().items():
            drawn.add_metric([key], counts.drawn)
            drawing.add_metric([key], counts.drawing)
            for status, count in counts.refused.items():
                refused.add_metric([key, str(status)], count)
        yield from (drawn, drawing, refused)


def server(host: str, port: int, registry: CollectorRegistry) -> HTTPServer:
    """A server of the page, which asks for no key, in a thread of its own.

    OSError where it cannot listen there.
    """
    made, _ = start_http_server(port, host, registry)
    made.RequestHandlerClass.timeout = PATIENCE
    made.handle_error = lambda *_: None  # whoever says nothing is no error
    return made
