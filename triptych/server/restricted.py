"""A secret for those of Triton's APIs that are for the server's operator and not for clients."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from triptych.server import flags

APIS = "shared-memory,model-repository,trace,logging"
"""What is closed: to register memory, to load and unload models, to write traces and logs."""

HEADER = "triptych-secret"
"""What a call of these APIs must send with the secret; over gRPC after `triton-grpc-protocol-`."""

VARIABLE = "TRIPTYCH_SECRET"
"""The environment variable with the secret, for whoever wants to know it; else it is random."""

FLAGS = ("--http-restricted-api", "--grpc-restricted-protocol")


def with_restrictions(arguments: list[str], known: Sequence[str]) -> list[str]:
    """`arguments` with the flags that make `APIS` ask for the secret.

    `known`: those of `FLAGS` that this Triton has. A flag that `arguments` give stays as it is.
    """
    secret = os.environ.get(VARIABLE) or secrets.token_hex(32)
    missing = [flag for flag in known if not flags.values(arguments, flag)]
    return arguments + [f"{flag}={APIS}:{HEADER}={secret}" for flag in missing]
