"""The page to draw on: start the server and the gateway, open the page, stop both on Ctrl-C.

Takes the arguments of `triptych gateway`, and adds the server's address; the access log is written
with --access-log alone. The server's gRPC is at --grpc-port, 8001 by default, for clients beside
the page.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from triptych import interrupts

if __name__ == "__main__":
    interrupts.end_at_once(code=0)  # while the rest is imported

import os
import signal
import threading
import webbrowser

from scripts.own_server import with_server
from triptych import cli
from triptych.commands import gateway
from triptych.server import Unfit, flags, preflight
from triptych.server.running import RunningServer, free_ports


def main(arguments: list[str]) -> int:
    """The gateway's exit code, 1 if the server cannot start or ends, or a port is taken."""
    try:
        grpc_port = preflight.port_of(arguments, "--grpc-port", preflight.PORTS["grpc"])
        preflight.check_port("grpc", "127.0.0.1", grpc_port, "--grpc-port")
        grpc_port = grpc_port or free_ports(1)[0]
        own = "--no-access-log", *flags.without(arguments, "--grpc-port")
        options = cli.parse(["gateway", *own, "--url", f"127.0.0.1:{grpc_port}"])
        page = gateway.prepare(options)
    except Unfit as reason:
        print(f"make web: {reason}", file=sys.stderr)
        return 1
    except gateway.CannotServe as reason:
        print(f"make web: {reason}", file=sys.stderr)
        return reason.code

    def draw(server: RunningServer) -> int:
        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            threading.Thread(target=webbrowser.open, args=(page.url,), daemon=True).start()
        return page.serve()

    return with_server(draw, grpc_port, lost=lambda: os.kill(os.getpid(), signal.SIGTERM))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(interrupts.run(lambda: main(sys.argv[1:]), code=0))
