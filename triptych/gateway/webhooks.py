"""Webhooks: a job's end is told to an address of the caller's, signed, at allowed hosts only.

Signed as Standard Webhooks has it: https://www.standardwebhooks.com.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from ssl import SSLContext
from typing import Any

import httpx
from prometheus_client import Counter

import triptych
from triptych.gateway import access_log

PAUSES = (0, 2, 20)
"""Seconds before each try."""

SECONDS = 10
"""A try's, from the search of the host to the answer's headers."""

PORTS = {"http": 80, "https": 443}


class Webhooks:
    """Where webhooks may go, and what signs them. `outcomes` counts them."""

    def __init__(self, hosts: Sequence[str] = (), secret: str = "") -> None:
        """`hosts`: HOST, at its scheme's own port, or HOST:PORT. `secret`: whsec_ and base64.

        Raises ValueError for what is none, and for hosts without a secret.
        """
        self._hosts = [_host(host) for host in hosts]
        self._key = _key(secret) if hosts else b""
        self.outcomes = Counter("triptych_gateway_webhooks", "jobs", ["outcome"], registry=None)
        for outcome in ("sent", "given_up"):
            self.outcomes.labels(outcome)

    def url(self, text: str) -> httpx.URL:
        """The address that a text is; ValueError unless it is one at an allowed host."""
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, ValueError):
            url = httpx.URL()
        host, usual = url.copy_with(port=None).netloc.decode(), PORTS.get(url.scheme)
        port = usual if url.port is None else url.port
        names = {f"{host}:{port}", host} if port == usual else {f"{host}:{port}"}
        if usual is None or url.userinfo or names.isdisjoint(self._hosts):
            hosts = f"http or https, without a user, at {', '.join(self._hosts)}"
            raise ValueError(f"{hosts if self._hosts else 'none'}; others by --webhook-host")
        return url

    async def post(self, url: httpx.URL, id: str, body: str, ids: Mapping[str, Any]) -> None:
        """Post a message of JSON, again while it is not taken; log it with the `ids`.

        `id`: the message's own, by which a receiver knows it when it comes twice.
        """
        begun, tries, sent, said = time.monotonic(), 0, False, {}
        try:
            for pause in PAUSES:
                await asyncio.sleep(pause)
                tries += 1
                said = await self._try(url, id, body)
                sent = said.get("status", 0) // 100 == 2
                if sent:
                    return
        finally:
            self.outcomes.labels("sent" if sent else "given_up").inc()
            line = {"webhook": url.netloc.decode(), "sent": sent, **said, "tries": tries, **ids}
            access_log.write(line, time.monotonic() - begun)

    async def _try(self, url: httpx.URL, id: str, body: str) -> dict[str, Any]:
        """The status of the answer to a request, or its error."""
        headers = {
            "content-type": "application/json",
            "user-agent": f"triptych/{triptych.__version__}",
            **signed(self._key, id, int(time.time()), body),
        }
        try:
            async with (
                asyncio.timeout(SECONDS),
                httpx.AsyncClient(verify=self._tls, timeout=None) as client,
                client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                return {"status": answer.status_code}
        except TimeoutError:
            return {"error": f"no answer in {SECONDS} s"}
        except (httpx.HTTPError, OSError, ValueError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    @cached_property
    def _tls(self) -> SSLContext:
        return httpx.create_ssl_context()


def signed(key: bytes, id: str, timestamp: int, body: str) -> dict[str, str]:
    """The headers that sign a message; `timestamp` in seconds since 1970."""
    digest = hmac.digest(key, f"{id}.{timestamp}.{body}".encode(), hashlib.sha256)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _host(text: str) -> str:
    """HOST or HOST:PORT as an address has it."""
    try:
        url = httpx.URL(f"//{text}")
    except httpx.InvalidURL as error:
        raise ValueError(f"--webhook-host: {text}: {error}") from None
    host = url.netloc.decode()
    if not host or "*" in host or "%" in host or str(url) != f"//{host}":
        raise ValueError(f"--webhook-host: {text} is no HOST and no HOST:PORT")
    return host


def _key(secret: str) -> bytes:
    """The bytes of a secret."""
    try:
        if secret.startswith("whsec_"):
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            if 24 <= len(key) <= 64:
                return key
    except binascii.Error:
        pass
    raise ValueError("the webhooks' secret must be whsec_ and the base64 of 24 to 64 bytes")
