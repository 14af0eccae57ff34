"""A Service of Kubernetes on loopback."""

from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import threading


class Service:
    """Each new connection goes to the next of `backends`, HOST:PORT, and stays there.

    `address` is its own. A context manager.
    """

    def __init__(self, backends: list[str]) -> None:
        self._backends = list(backends)
        numbers = itertools.count()
        service = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                backend = service._backends[next(numbers) % len(service._backends)]
                host, _, port = backend.rpartition(":")
                with socket.create_connection((host, int(port))) as other:
                    back = threading.Thread(target=_copy, args=(other, self.request), daemon=True)
                    back.start()
                    _copy(self.request, other)
                    back.join()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 100

        self._server = Server(("127.0.0.1", 0), Connection)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Service:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def leave(self, backend: str) -> None:
        """It gets no more connections; those that there are stay."""
        self._backends.remove(backend)

    def join(self, backend: str) -> None:
        """It gets connections."""
        self._backends.append(backend)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source has no more; then the target is told so."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
