"""Addresses of a server's gRPC."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket

from triptych.client_errors import Refused

_ADDRESS = r"(unix|dns|ipv4|ipv6):\S+|[^/\s]+:\d+"
"""host:port, or one of gRPC's other names for an address."""


def check_url(url: str) -> None:
    """Raise Refused unless `url` can be the address of a server's gRPC."""
    if not re.fullmatch(_ADDRESS, url):
        raise Refused(
            f"url: got {url!r}; allowed: host:port of the server's gRPC, as localhost:8001"
        )


def speaks_http(url: str) -> bool:
    """Whether HTTP is answered at `url`, a host:port, within 3 seconds."""
    try:
        with contextlib.closing(http.client.HTTPConnection(url, timeout=3)) as connection:
            connection.request("GET", "/v2")
            connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    return True


def own_address() -> str:
    """This machine's address in its network, its name where it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks for the way there
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
