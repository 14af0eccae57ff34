"""An HTTP server for a test that takes webhooks."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext


class Receiver:
    """`came`: (path, headers, body) of each request. `host`: its host and port.

    `answers`: the statuses of the next answers, 204 when there are no more; a text is the place
    that a redirection leads to. `hold`: answers wait while it is clear.
    """

    def __init__(self, tls: SSLContext | None = None) -> None:
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int | str] = []
        self.hold = threading.Event()
        self.hold.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):
                body = handler.rfile.read(int(handler.headers["content-length"]))
                headers = {name.lower(): value for name, value in handler.headers.items()}
                self.came.append((handler.path, headers, body))
                answer = self.answers.pop(0) if self.answers else 204
                self.hold.wait(30)
                handler.send_response(307 if isinstance(answer, str) else answer)
                if isinstance(answer, str):
                    handler.send_header("location", answer)
                handler.end_headers()

            do_GET = do_POST

            def log_message(handler, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # a client that has left
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
