"""The gateway's certificate: two files that are read again when they change."""

from __future__ import annotations

import logging
import os
import ssl

log = logging.getLogger(__name__)


class Certificate:
    """A certificate with its chain and its key, PEM both; one file may hold both."""

    LOOK_AGAIN = 1
    """Seconds from one look at the files to the next."""

    def __init__(self, cert: str, key: str) -> None:
        """Raises ValueError unless they fit together and the key has no passphrase."""
        self.cert, self.key = cert, key
        self._version = self._stat()
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def renew(self, context: ssl.SSLContext) -> None:
        """New connections of `context` get what the files are now, or were when they last fitted.

        Connections that are open stay as they are.
        """
        version = self._stat()
        if version == self._version:
            return
        self._version = version
        try:
            # One that does not fit its key would stay in the context that serves.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(context)
        except ValueError as error:
            log.warning("%s; the certificate stays as it was", error)

    def _stat(self) -> list[tuple[int, ...]]:
        found = []
        for file in (self.cert, self.key):
            try:
                seen = os.stat(file)
                found.append((seen.st_ino, seen.st_size, seen.st_mtime_ns))
            except OSError:
                found.append(())
        return found

    def _load(self, context: ssl.SSLContext) -> None:
        def no_passphrase() -> str:
            raise ValueError(f"--tls-key: {self.key} has a passphrase")

        try:
            context.load_cert_chain(self.cert, self.key, no_passphrase)
        except OSError as error:  # ssl.SSLError too
            raise ValueError(f"--tls-cert {self.cert}, --tls-key {self.key}: {error}") from error
