"""Calls a function in a new process, so that its memory, output and crashes stay there."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from pathlib import Path

from triptych_export.errors import ExportError

_CONTEXT = multiprocessing.get_context("spawn")
SHOWN = 2000
"""Characters of a failed call's output that its error shows."""


def run_apart(module: str, function: str, *arguments, log: Path):
    """`module.function(*arguments)` in a new process, which writes its output to the file `log`.

    The module is imported there and not here. Arguments and result must be picklable.
    ExportError if the call raises or dies.
    """
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(
        target=_call, args=(theirs, log, module, function, arguments), daemon=True
    )
    process.start()
    theirs.close()
    try:
        failed, result = ours.recv()
    except EOFError:
        process.join()
        failed, result = True, f"died with {_meaning(process.exitcode)}\n{_tail(log)}"
    process.join()
    if failed:
        raise ExportError(f"{function} {result}")
    return result


def _call(pipe, log: Path, module: str, function: str, arguments: tuple) -> None:
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    try:
        pipe.send((False, getattr(importlib.import_module(module), function)(*arguments)))
    except ExportError as error:
        pipe.send((True, f"failed: {error}"))
    except BaseException as error:
        sys.stdout.flush()
        sys.stderr.flush()
        pipe.send((True, f"failed: {type(error).__name__}: {error}\n{_tail(log)}"))


def _meaning(exitcode: int | None) -> str:
    if exitcode == -9:
        return "signal 9, as when memory runs out"
    return f"signal {-exitcode}" if exitcode and exitcode < 0 else f"exit code {exitcode}"


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-SHOWN:] if log.is_file() else ""
