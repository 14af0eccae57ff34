"""Running the server's process in the foreground, and ending it with all its children."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def run(command: list[str], env: dict[str, str], kept_open: int) -> int:
    """Run `command` until it ends; its exit code, 128 + N if signal N killed it.

    SIGTERM, SIGINT (Ctrl-C) and SIGHUP end it in its own orderly way, a second one at once. No
    process that it started outlives it. It inherits the file descriptor `kept_open`.
    """
    signals_seen = 0

    def end(signum: int, frame: object) -> None:
        nonlocal signals_seen
        signals_seen += 1
        if signals_seen == 1:
            process.terminate()
        else:
            _kill_group(process.pid)

    held = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    # A session of its own, so that Ctrl-C reaches it once, from here, and not its children.
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(kept_open,),
        preexec_fn=end_with_parent,
    )
    for signum in held:
        signal.signal(signum, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
    code = process.wait()
    _end_group(process.pid)
    return code if code >= 0 else 128 - code


def end_with_parent() -> None:
    """In a new child process: have it get SIGTERM when its parent ends, however that ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def _kill_group(group: int) -> bool:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _end_group(group: int) -> None:
    deadline = time.monotonic() + 10
    while _kill_group(group) and time.monotonic() < deadline:
        time.sleep(0.02)
