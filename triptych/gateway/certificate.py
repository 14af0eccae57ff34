"""The gateway's certificate: two files that are read again when they change."""

from __future__ import annotations

import logging
import ssl

from triptych.gateway.files import version

log = logging.getLogger(__name__)


class Certificate:
    """A certificate with its chain and its key, PEM both; one file may hold both."""

    LOOK_AGAIN = 1
    """Seconds from one look at the files to the next."""

    def __init__(self, cert: str, key: str) -> None:
        """Raises ValueError unless they fit together and the key has no passphrase."""
        self.cert, self.key = cert, key
        self._version = self._files()
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def renew(self, context: ssl.SSLContext) -> None:
        """New connections of `context` get what the files are now, or were when they last fitted.

        Connections that are open stay as they are.
        """
        files = self._files()
        if files == self._version:
            return
        self._version = files
        try:
            # One that does not fit its key would stay in the context that serves.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(context)
        except ValueError as error:
            log.warning("%s; the certificate stays as it was", error)

    def _files(self) -> tuple[tuple[int, ...], ...]:
        return version(self.cert), version(self.key)

    def _load(self, context: ssl.SSLContext) -> None:
        def no_passphrase() -> str:
            raise ValueError(f"--tls-key: {self.key} has a passphrase")

        try:
            context.load_cert_chain(self.cert, self.key, no_passphrase)
        except OSError as error:  # ssl.SSLError too
            raise ValueError(f"--tls-cert {self.cert}, --tls-key {self.key}: {error}") from error
