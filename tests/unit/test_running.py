from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from triptych.server.running import RunningServer, free_ports


class Pages(BaseHTTPRequestHandler):
    """Any page, with the status of the server that it is asked of."""

    def do_GET(self):
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def page():
    """Serves pages with a status, on a port of its own; "host:port"."""
    servers = []

    def serve(status):
        servers.append(HTTPServer(("127.0.0.1", 0), Pages))
        servers[-1].status = status
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_is_ready_when_its_models_and_its_metrics_are(tmp_path, page):
    running = RunningServer(tmp_path, tmp_path / "log")
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    for health, metrics, ready in (
        (nobody, nobody, False),
        (page(400), page(200), False),
        (page(200), nobody, False),
        (page(200), page(200), True),
    ):
        running.http, running.metrics = health, metrics
        assert running.is_ready() == ready
