"""Work in a process of its own, asked for line by line: what is compared shares no interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]


class Worker:
    """A running script that calls `serve`; a context manager. One call at a time, in turn."""

    def __init__(self, python: Path | str, script: str, *arguments: object) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [str(python), str(CHECKOUT / "benchmarks" / script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=CHECKOUT,
        )
        self._turn = threading.Lock()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._said.close()

    def call(self, name: str, *arguments: Any) -> Any:
        """What the script's function `name` returns; RuntimeError with what it raised."""
        with self._turn:
            print(json.dumps([name, arguments]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended: {self._last_words()}"}
        if "error" in answer:
            raise RuntimeError(f"{self._process.args[1]}: {answer['error']}")
        return answer["result"]

    def _last_words(self) -> str:
        self._said.seek(0)
        return (self._said.read().splitlines() or ["it said nothing"])[-1]


def serve(**functions: Callable[..., Any]) -> None:
    """Answer the calls of a Worker until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"result": functions[name](*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def timed(work: Callable, *arguments: Any, **named: Any) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    work(*arguments, **named)
    return time.perf_counter() - begun
