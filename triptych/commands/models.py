"""Show the models that a running server draws with; load one, or unload one.

Loading and unloading is for a server with --model-control-mode=explicit and asks for its secret:
the environment variable TRIPTYCH_SECRET, here as it was when the server was started.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

from triptych.client import Client, ClientError
from triptych.errors import InvalidRequest, plain
from triptych.names import Names, chosen, models
from triptych.server import restricted

EXAMPLES = """\
example:
  triptych models
  triptych models --unload ink
  triptych models --load ink

exit codes:
  0 done, 1 the server failed or refused, 2 an argument is wrong, 3 no server there
"""

UNLOADED = 60.0
"""Seconds in which a model's requests may end before its stages are unloaded."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", default="localhost:8001", help="the server's gRPC (default: %(default)s)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--load", metavar="NAME", help="load a model of the repository, all stages")
    what.add_argument(
        "--unload", metavar="NAME", help="unload a model, when its requests have ended"
    )


def run(options: argparse.Namespace) -> int:
    """Do it, and print the models that are there then; the exit code."""
    from tritonclient.utils import InferenceServerException

    try:
        with Client(options.url) as client:
            client.models()  # whether a server is there
            if options.load or options.unload:
                repository = _Repository(options.url)
                change = repository.load if options.load else repository.unload
                for line in change(options.load or options.unload):
                    print(line, flush=True)
            for name in client.models():
                print(f"served: {name}")
    except ClientError as error:
        print(f"triptych models: {error}", file=sys.stderr)
        return error.exit_code
    except InvalidRequest as error:
        print(f"triptych models: {error}", file=sys.stderr)
        return 2
    except InferenceServerException as error:
        print(f"triptych models: {_explained(error.message())}", file=sys.stderr)
        return 1
    return 0


class _Repository:
    """Triton's API for loading and unloading, which takes one stage at a time."""

    def __init__(self, url: str) -> None:
        from tritonclient import grpc

        self._server = grpc.InferenceServerClient(url)
        secret = os.environ.get(restricted.VARIABLE, "")
        self._headers = {f"triton-grpc-protocol-{restricted.HEADER}": secret}

    def load(self, model: str) -> Iterator[str]:
        """Load what there is of the model, what takes requests last; gives a line for each."""
        for name in self._parts(model):
            begun = time.monotonic()
            self._server.load_model(name, headers=self._headers)
            yield f"{name}: loaded in {time.monotonic() - begun:.1f} s"

    def unload(self, model: str) -> Iterator[str]:
        """Unload what there is of the model, what takes requests first; gives a line for each."""
        parts = self._parts(model)
        for name in reversed(parts):
            self._server.unload_model(name, headers=self._headers)
            if name == model:
                self._wait_unloaded(name)
            yield f"{name}: unloaded"

    def _parts(self, model: str) -> list[str]:
        there = self._states()
        chosen(model, models(there))
        return [name for name in Names(model).all if name in there]

    def _states(self) -> dict[str, str]:
        index = self._server.get_model_repository_index(headers=self._headers)
        return {one.name: one.state for one in index.models}

    def _wait_unloaded(self, name: str) -> None:
        """Until the requests that the ensemble has are answered: they still need the stages."""
        deadline = time.monotonic() + UNLOADED
        while self._states()[name] == "UNLOADING" and time.monotonic() < deadline:
            time.sleep(0.05)


def _explained(message: str) -> str:
    """Triton's words, and what to do about them."""
    if "restricted" in message:
        return (
            f"{message}: set {restricted.VARIABLE} here to what it is in the server's environment"
        )
    if "explicit" in message:
        return f"{message}: start the server with --model-control-mode=explicit --load-model=*"
    return plain(message)
