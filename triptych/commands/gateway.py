"""Serve OpenAI's images API, the Stable Diffusion WebUI's, and a page to draw on.

In front of a running server, whose gRPC is at --url. The page is at /, what the APIs take at /docs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych import interrupts, tracing
from triptych.addresses import own_address
from triptych.gateway.certificate import Certificate
from triptych.limits import AT_A_TIME
from triptych.server import Unfit, preflight

KEY = "TRIPTYCH_API_KEY"
WEBHOOK_SECRET = "TRIPTYCH_WEBHOOK_SECRET"
KEPT = 120
"""Seconds that a connection is kept on which nothing is asked: longer than proxies keep theirs (60
to 90 s), as a request that meets its end is lost."""

ENDING = b"triptych gateway: ending, when its pictures are; a second Ctrl-C ends it at once\n"
EXAMPLES = """\
example:
  triptych gateway --port 7860 &
  curl localhost:7860/v1/images/generations -H 'Content-Type: application/json' \\
      -d '{"prompt": "a red circle on a blue background", "size": "256x256"}'

exit codes:
  0 ended by SIGTERM or Ctrl-C, 1 the address cannot be listened on, 2 an argument or a package is
  missing or wrong
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", default="localhost:8001", help="the server's gRPC (default: %(default)s)")
    add("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    add("--port", type=_port, default=7860, help="(default: %(default)s)")
    add(
        "--api-key-file", metavar="FILE", help=f"holds the key to ask for (default: ${KEY}, if set)"
    )
    add(
        "--keys-file",
        metavar="FILE",
        help="several keys, each with a name and bounds, as JSON; read again when it changes",
    )
    add(
        "--metrics-port",
        type=_port,
        metavar="PORT",
        help="serves /metrics there too, by http and without a key, for a network that is "
        "Prometheus' alone",
    )
    add(
        "--tls-cert",
        metavar="FILE",
        help="a certificate, PEM, with its chain: serves https; read again when it changes",
    )
    add("--tls-key", metavar="FILE", help="the certificate's key, PEM, without a passphrase")
    add(
        "--timeout", type=_seconds, default=300, metavar="SECONDS", help="a picture's (%(default)s)"
    )
    add(
        "--exit-timeout-secs",
        type=_seconds,
        default=30,
        metavar="SECONDS",
        help="how long its end waits for the pictures in it (%(default)s)",
    )
    add(
        "--max-pictures",
        type=_count,
        default=AT_A_TIME,
        metavar="N",
        help="drawn at a time (%(default)s), as many as the server's own bound, max_streams",
    )
    add(
        "--allow-host",
        action="append",
        default=[],
        type=_host,
        metavar="NAME",
        help="a name by which requests may call the gateway, beside loopback's; may be repeated",
    )
    add(
        "--cors-origin",
        action="append",
        default=[],
        type=_origin,
        metavar="ORIGIN",
        help="a page elsewhere that may ask, as https://example.com; may be repeated",
    )
    add(
        "--access-log",
        action="store_true",
        default=True,
        help="write a line of JSON on standard error for each request (the default)",
    )
    add("--no-access-log", action="store_false", dest="access_log", help="write none")
    add(
        "--log-prompts",
        action="store_true",
        help="have prompts in the access log",
    )
    add(
        "--model-alias",
        action="append",
        default=[],
        type=_alias,
        metavar="NAME[=MODEL]",
        help="another name in OpenAI's API, as dall-e-3, of the model that is meant by none or of "
        "MODEL; may be repeated",
    )
    add(
        "--pictures-folder",
        metavar="FOLDER",
        help="where pictures are kept that are asked for by url (default: in memory): a folder, or "
        "a URL that fsspec opens, as s3://bucket/pictures; gateways with the same one answer for "
        "each other",
    )
    add(
        "--public-url",
        type=_public_url,
        metavar="URL",
        help="what the addresses of such pictures begin with, as https://example.com/art (default: "
        "as the request has it)",
    )
    add(
        "--webhook-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="where jobs may be told of; may be repeated",
    )
    add(
        "--webhook-secret-file",
        metavar="FILE",
        help=f"holds the secret that signs webhooks (default: ${WEBHOOK_SECRET}, if set)",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 1000")
    return int(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not over 0 and up to a million")
    return value


def _host(text: str) -> str:
    if not re.fullmatch(r"[^\s/:*]+|\[[0-9A-Fa-f:.]+\]", text):
        raise argparse.ArgumentTypeError(f"{text} is no host's name, without scheme and port")
    return text


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", text):
        raise argparse.ArgumentTypeError(f"{text} is no SCHEME://HOST[:PORT], and not *")
    return text


def _public_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", text):
        raise argparse.ArgumentTypeError(f"{text} is no http(s)://HOST[:PORT][/PATH]")
    return text.rstrip("/") + "/"


def _alias(text: str) -> tuple[str, str | None]:
    name, _, model = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text} is no NAME and no NAME=MODEL")
    return name, model or None


class CannotServe(Exception):
    """Why, in one line, and the exit code for it."""

    def __init__(self, reason: object, code: int) -> None:
        super().__init__(str(reason))
        self.code = code


@dataclass(frozen=True)
class Gateway:
    """A gateway whose options are checked and whose ports are its own.

    `url`: its address for this machine's browser. `serve`: serves until SIGTERM or Ctrl-C; the
    exit code.
    """

    url: str
    serve: Callable[[], int]


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code."""
    try:
        gateway = prepare(options)
    except CannotServe as reason:
        print(f"triptych gateway: {reason}", file=sys.stderr)
        return reason.code
    return gateway.serve()


def prepare(options: argparse.Namespace) -> Gateway:
    """The gateway, which serves nothing yet and needs no server yet; raises CannotServe."""
    try:
        import uvicorn  # noqa: F401

        from triptych.addresses import check_url
        from triptych.client_errors import ClientError
        from triptych.gateway import metrics
        from triptych.gateway.app import LOOPBACK, create_app
        from triptych.gateway.kept import Kept
        from triptych.gateway.keys import Keys
        from triptych.gateway.webhooks import Webhooks

        spans = None
        if tracing.is_wanted():
            from triptych.gateway.spans import Spans

            spans = Spans()
    except ModuleNotFoundError as error:
        extras = "gateway,tracing" if tracing.is_wanted() else "gateway"
        raise CannotServe(f"{error}: pip install 'triptych[{extras}]'", 2) from error
    try:
        check_url(options.url)
        if options.log_prompts and not options.access_log:
            raise ValueError("--log-prompts: needs --access-log")
        key = _secret("--api-key-file", options.api_key_file, KEY)
        keys = None
        if options.keys_file is not None:
            if key is not None:
                raise ValueError(f"--keys-file: not beside --api-key-file or {KEY}")
            keys = Keys(Path(options.keys_file))
        secret = _secret("--webhook-secret-file", options.webhook_secret_file, WEBHOOK_SECRET)
        webhooks = Webhooks(options.webhook_host, secret or "") if options.webhook_host else None
        certificate = _certificate(options.tls_cert, options.tls_key)
        kept = Kept(options.pictures_folder)
        listening = preflight.listen("page", options.host, options.port, "--port", "--host")
        if options.metrics_port is not None:
            at = options.host, options.metrics_port
            preflight.check_port("metrics", *at, "--metrics-port", "--host")
    except (ClientError, ValueError) as error:
        raise CannotServe(error, 2) from error
    except Unfit as error:
        raise CannotServe(error, 1) from error
    on_loopback = options.host in ("127.0.0.1", "localhost")
    if not on_loopback and key is None and keys is None:
        print("triptych gateway: warning: anybody may draw here; see --api-key-file", flush=True)
    app = create_app(
        options.url,
        key,
        options.timeout,
        options.max_pictures,
        hosts=[*LOOPBACK, *options.allow_host] if on_loopback or options.allow_host else None,
        origins=options.cors_origin,
        public_url=options.public_url,
        model_aliases=dict(options.model_alias),
        keys=keys,
        log_prompts=options.log_prompts,
        webhooks=webhooks,
        kept=kept,
        spans=spans,
    )
    if options.metrics_port is not None:
        page = metrics.server(options.host, options.metrics_port, app.state.registry)
        where = f"{options.host}:{page.server_port}"
        print(f"triptych gateway: metrics at http://{where}/metrics", flush=True)
    here, others = _urls(options, listening.getsockname()[1])
    where = f"{here}{others}"
    return Gateway(here, lambda: _serve(options, app, listening, where, certificate))


def _urls(options: argparse.Namespace, port: int) -> tuple[str, str]:
    """Where its page is for this machine's browser, and what to tell others, or ""."""
    scheme = "https" if options.tls_cert else "http"
    if options.host not in ("", "0.0.0.0"):
        return f"{scheme}://{options.host}:{port}/", ""
    others = options.allow_host[0] if options.allow_host else own_address()
    return f"{scheme}://127.0.0.1:{port}/", f", for others at {scheme}://{others}:{port}/"


def _serve(
    options: argparse.Namespace,
    app: Any,
    listening: socket.socket,
    where: str,
    certificate: Certificate | None,
) -> int:
    import uvicorn

    from triptych.gateway import access_log, leaving

    if options.access_log:
        _log_to_stderr(access_log.log)
    served = leaving.Leaving(app)

    async def renew() -> None:
        certificate.renew(config.ssl)

    https = {}
    if certificate is not None:
        https = {
            "ssl_certfile": certificate.cert,
            "ssl_keyfile": certificate.key,
            "callback_notify": renew,
            "timeout_notify": certificate.LOOK_AGAIN,
        }
    config = uvicorn.Config(
        served,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=options.exit_timeout_secs,
        **https,
    )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if served.begun:
                await asyncio.sleep(leaving.SECONDS)
            await super().shutdown(sockets)

        def handle_exit(self, signum: int, frame: Any) -> None:
            ends_already = self.should_exit
            super().handle_exit(signum, frame)
            served.begun = signum == signal.SIGTERM
            if ends_already:  # the second ends it at once; what that breaks off is no error
                logging.disable()
            else:
                tell(signum)

    def is_failure(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))

    server = Server(config)
    logging.getLogger("uvicorn.error").addFilter(is_failure)  # an answer that the end breaks off

    def tell(signum: int) -> None:
        if signum == signal.SIGINT:
            interrupts.tell(ENDING)

    def end(signum: int, frame: Any) -> None:
        ends_already, server.should_exit = server.should_exit, True
        if not ends_already:
            tell(signum)

    # The server has handlers of its own while it runs; at its end it sends itself what came.
    with interrupts.handled_by(end, signal.SIGTERM, signal.SIGINT):
        print(f"triptych gateway: the page and the APIs are at {where}", flush=True)
        server.run(sockets=[listening])
    return 0


def _log_to_stderr(log: logging.Logger) -> None:
    """Write the lines as they are."""
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    log.propagate = False


def _secret(option: str, file: str | None, variable: str) -> str | None:
    """What the option's file holds, or else the environment's variable; None for neither."""
    if file is None:
        return os.environ.get(variable) or None
    try:
        secret = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{option}: {error}") from error
    if not secret:
        raise ValueError(f"{option}: {file} is empty")
    return secret


def _certificate(cert: str | None, key: str | None) -> Certificate | None:
    """None if neither file is named; ValueError for one alone, and for what Certificate raises."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ValueError("--tls-cert and --tls-key go together")
    return Certificate(cert, key)
