"""`fastdeployserver`: the served models on whichever Triton this machine has.

    fastdeployserver --model-repository=model_repository [--host=ADDRESS] [--restart=false]
        [--restrict=false] [any flag of Triton]

The first of: FastDeploy's own fastdeployserver on PATH, with its own backend for the networks;
`tritonserver` on PATH; the Triton inside the package nvidia-pytriton. The latter two get this
project's `fastdeploy` backend. The embedded one listens on loopback only, unless --host or Triton's
own --http-address, --grpc-address and --metrics-address say otherwise.

When a model's process or the server dies, the server is started again, unless --restart=false.
Triton's shared-memory, model-repository, trace and logging APIs ask for a secret, a random one or
that of the environment variable TRIPTYCH_SECRET, unless --restrict=false. FastDeploy's own server
knows neither.
"""

from __future__ import annotations

import signal
import sys

from triptych import interrupts

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Run the server until it ends; its exit code, 2 if it cannot start here."""
    if arguments is not None:
        return _run(arguments)
    # Until there is a server to end. Importing the rest takes most of that time.
    interrupts.end_at_once(*_STOPS, code=0, line=b"fastdeployserver: ending\n")
    code = _run(sys.argv[1:])
    for signum in _STOPS:
        signal.signal(signum, signal.SIG_IGN)  # there is none any more, and this is its code
    return code


def _run(arguments: list[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0

    from triptych.server import Unfit, launch

    try:
        return launch.run(arguments)
    except Unfit as reason:
        print(f"fastdeployserver: {reason}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
