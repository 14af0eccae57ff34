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
import time
import urllib.request
import webbrowser

from scripts.own_server import with_server
from triptych import cli
from triptych.server import Unfit, flags, preflight
from triptych.server.running import RunningServer


def main(arguments: list[str]) -> int:
    """The gateway's exit code, 1 if the server cannot start or a port is taken."""
    try:
        port = preflight.port_of(arguments, "--port", "7860")
        host = flags.value(arguments, "--host", "127.0.0.1")
        preflight.check_port("page", host, port, "--port", "--host")
        grpc_port = preflight.port_of(arguments, "--grpc-port", preflight.PORTS["grpc"])
        preflight.check_port("grpc", "127.0.0.1", grpc_port, "--grpc-port")
    except Unfit as reason:
        print(f"make web: {reason}", file=sys.stderr)
        return 1
    arguments = flags.without(arguments, "--grpc-port")

    def draw(server: RunningServer) -> int:
        threading.Thread(target=_open, args=(f"http://127.0.0.1:{port}/",), daemon=True).start()
        return cli.main(["gateway", "--no-access-log", *arguments, "--url", server.grpc])

    return with_server(draw, grpc_port)


def _open(page: str) -> None:
    """Show the page where there is a screen, as soon as it is there."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    while True:
        try:
            urllib.request.urlopen(page, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            webbrowser.open(page)
            return


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(interrupts.run(lambda: main(sys.argv[1:]), code=0))
