"""What the gateway counts, as a page in Prometheus' text format."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MEDIA_TYPE = "text/plain; version=0.0.4"

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)
"""The bounds of the histogram of answers' times."""


FAILURES = (500, 503, 504)
"""Statuses that are counted from 0 on: to Prometheus a series that begins with 1 has not grown."""


PATIENCE = 10
"""Seconds that the page's own port waits for a request."""


class Metrics:
    """Requests, by route and status; `in_flight` is how many have no whole answer yet."""

    def __init__(self, routes: Iterable[str]) -> None:
        """`routes`: all that there are."""
        self.in_flight = 0
        self._answers = Counter({(route, status): 0 for route in routes for status in FAILURES})
        self._within: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, route: str, status: int, seconds: float) -> None:
        """An answer has ended, which took so long."""
        with self._lock:
            self._answers[route, status] += 1
            self._seconds[route] += seconds
            within = self._within.setdefault(route, [0] * len(SECONDS))
            for number, most in enumerate(SECONDS):
                within[number] += seconds <= most

    def metrics(self) -> str:
        """The lines of the page."""
        name, times = "triptych_gateway_requests", "triptych_gateway_request_seconds"
        lines = [f"# TYPE {name}_in_flight gauge", f"{name}_in_flight {self.in_flight}"]
        with self._lock:
            lines.append(f"# TYPE {name}_total counter")
            counts: Counter[str] = Counter()
            for (route, status), count in sorted(self._answers.items()):
                lines.append(f'{name}_total{{route="{route}",code="{status}"}} {count}')
                counts[route] += count
            lines.append(f"# TYPE {times} histogram")
            for route, within in sorted(self._within.items()):
                for most, count in (*zip(SECONDS, within), ("+Inf", counts[route])):
                    lines.append(f'{times}_bucket{{route="{route}",le="{most}"}} {count}')
                lines.append(f'{times}_sum{{route="{route}"}} {self._seconds[route]:.3f}')
                lines.append(f'{times}_count{{route="{route}"}} {counts[route]}')
        return "\n".join(lines) + "\n"


def server(host: str, port: int, text: Callable[[], str]) -> ThreadingHTTPServer:
    """A server of `text()` at /metrics, which asks for no key, in a thread of its own.

    OSError where it cannot listen there.
    """

    class Page(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def do_GET(self) -> None:
            found = self.path == "/metrics"
            body = text().encode() if found else b"only /metrics is here\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", MEDIA_TYPE if found else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer((host, port), Page)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made
