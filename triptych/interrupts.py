"""Ctrl-C in a command: one line, no traceback, whenever it comes; and who takes its signals."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it: 128 + SIGINT."""


def tell(line: bytes) -> None:
    """Write to standard error from within a signal's handler, or nothing where nobody reads it.

    What is printed may be half written there.
    """
    with contextlib.suppress(OSError):
        os.write(2, line)


def end_at_once(*signals: int, code: int = INTERRUPTED, line: bytes = b"interrupted\n") -> None:
    """From here on SIGINT, or each of `signals`, ends this process with `code` where it stands.

    For as long as there is nothing to tidy up, for example while a command's modules are imported.
    """

    def leave(*_: object) -> None:
        tell(line)
        os._exit(code)

    for signum in signals or (signal.SIGINT,):
        signal.signal(signum, leave)


@contextlib.contextmanager
def handled_by(handler: Callable[..., object], *signals: int) -> Iterator[None]:
    """`handler` takes each of `signals`, and afterwards again whoever took them before."""
    before = {signum: signal.signal(signum, handler) for signum in signals}
    try:
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)


def run(work: Callable[[], int], code: int = INTERRUPTED) -> int:
    """What `work` returns. If Ctrl-C ends it, one line, and the end of this process with `code`.

    `work` gets a KeyboardInterrupt, and a second one if it takes long to tidy up. A third Ctrl-C
    ends the process where it stands.
    """
    interrupts, comes_again = 0, False

    def again(failed: Any) -> None:
        # Where Python cannot raise it, in a destructor for example, it comes a moment later.
        nonlocal comes_again
        if failed.exc_type is KeyboardInterrupt:
            comes_again = True
            threading.Timer(0.01, _thread.interrupt_main).start()

    def interrupt(*_: object) -> None:
        nonlocal interrupts, comes_again
        interrupts += not comes_again
        comes_again = False
        sys.unraisablehook = again
        if interrupts == 2:
            end_at_once(code=code)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        result = work()
    except BaseException:  # or what came of the interrupt: a call on a closed connection
        if not interrupts:
            raise
    else:
        if not interrupts:
            signal.signal(signal.SIGINT, before)
            return result
    end_at_once(code=code, line=b"")
    sys.stdout.flush()
    tell(b"interrupted\n")
    # Not by sys.exit, which waits for threads, and at whose end a Ctrl-C kills.
    os._exit(code)
