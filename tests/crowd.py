"""Clients in threads, which ask for one thing after another."""

from __future__ import annotations

import threading


class Crowd:
    """`clients` threads of `run`, which a class of these has, until `_ended` is set."""

    PATIENCE = 120.0
    """Seconds for the last request of a client."""

    def __init__(self, clients: int) -> None:
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self.run, args=(number,)) for number in range(clients)
        ]

    def run(self, number: int) -> None:
        """What the client of this number does."""
        raise NotImplementedError

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.wait()

    def wait(self) -> None:
        """Return when all clients have ended; a request that hangs fails the test."""
        for thread in self._threads:
            thread.join(self.PATIENCE)
            assert not thread.is_alive(), "a request without an answer"
