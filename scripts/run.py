"""A prompt to a picture, once: start the server, ask it over gRPC, write the file, stop the server.

Takes the arguments of client/client.py, and adds the server's address.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from client import client
from triptych.server import Unfit
from triptych.server.running import RunningServer


def main(arguments: list[str]) -> int:
    """The client's exit code, 1 if the server cannot start."""
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(CHECKOUT / "model_repository", Path(folder) / "server.log")
        begun = time.monotonic()
        try:
            with server:
                print(f"server: ready after {time.monotonic() - begun:.1f} s", flush=True)
                return client.main([*arguments, "--url", server.grpc])
        except Unfit as reason:
            print(reason, file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
