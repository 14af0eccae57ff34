"""A prompt to a picture, once: start the server, ask it over gRPC, write the file, stop the server.

Takes the arguments of client/client.py, and adds the server's address.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from triptych import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # while the rest is imported

from client import client
from scripts.own_server import with_server
from triptych.server.running import RunningServer


def main(arguments: list[str]) -> int:
    """The client's exit code, 1 if the server cannot start."""
    options = client.parse(arguments)

    def draw(server: RunningServer) -> int:
        options.url = server.grpc
        return client.draw(options)

    return with_server(draw)


if __name__ == "__main__":
    sys.exit(interrupts.run(lambda: main(sys.argv[1:])))
