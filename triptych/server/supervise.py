"""Running servers in the foreground, one after another, each ended with all its children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from triptych import interrupts
from triptych.ipc.activity import Stages
from triptych.server.model_processes import ModelProcesses

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_HELD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a run of the server ended.

    `code`: its exit code, 128 + N if signal N killed it unasked, 0 if it was killed because a
    signal to the launcher said so. `fault`: it died, and neither a signal nor the server itself
    had meant it to end.
    """

    code: int
    fault: bool = False


class Supervisor:
    """Runs the server until it ends, or until SIGTERM, SIGINT (Ctrl-C) or SIGHUP ends it.

    At the first signal no more requests are taken, and the server gets SIGTERM when no stage
    is at work: a Triton that ends lets no stage follow another. After `exit_timeout` seconds it
    gets it in any case. At a second signal it is killed.
    """

    LOOK = 0.25
    """Seconds between two looks at the server's processes; one that died is known after two."""

    TOLD = 0.2
    """Seconds in which the other stages answer, after one has died, what they hold for long."""

    GRACE = 1.0
    """Seconds after that in which requests end that are in none for long."""

    def __init__(self, exit_timeout: float) -> None:
        self._exit_timeout = exit_timeout
        self._process: subprocess.Popen | None = None
        self._stages: Stages | None = None
        self._signals = 0
        self._signalled = 0.0
        self._terminated = False
        # What outlives the server becomes a child of this process, which sees its end.
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for signum in _HELD:
            signal.signal(signum, self._end)

    def run(self, command: list[str], env: dict[str, str], kept_open: int, stages: Stages) -> Ended:
        """Run `command`, which inherits the file descriptor `kept_open`; `stages` are its own.

        No process that it started outlives it. A model's process that dies ends it too.
        """
        with signals_held():
            if self._signals:
                return Ended(0)
            # A session of its own, so that Ctrl-C reaches it once, from here, and not its children.
            self._stages = stages
            process = self._process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(kept_open,),
                preexec_fn=end_with_parent,
            )
        lost = self._watch(process, stages)
        self._process = self._stages = None  # a signal from here on finds no server to end
        _kill_group(process.pid)
        code = process.wait()
        _end_group(process.pid)
        if self._signals:
            return Ended(max(code, 0))
        return Ended(128 - code if code < 0 else code, lost or code < 0)

    def pause(self, seconds: float) -> bool:
        """Wait for `seconds`, or until a signal comes; False if one has come, now or earlier."""
        end = time.monotonic() + seconds
        while not self._signals and time.monotonic() < end:
            time.sleep(0.05)
        return not self._signals

    def _watch(self, process: subprocess.Popen, stages: Stages) -> bool:
        """Wait until the server has ended, or can only be killed as a model's process died.

        Returns whether the latter is so.
        """
        models = ModelProcesses(process.pid)
        while not _ended(process, self.LOOK):
            if self._signals:
                self._drain()
            dead = None if self._terminated else models.dead()
            if dead:
                print(f"fastdeployserver: the process of {dead} died", file=sys.stderr, flush=True)
                stages.lose(dead.partition(" ")[0])
                if not _ended(process, self.TOLD):
                    process.terminate()  # it is not ready any more, and answers what it can
                    _ended(process, self.GRACE)
                return True
        if process.returncode < 0 and not self._signals:
            name = signal.Signals(-process.returncode).name
            print(f"fastdeployserver: the server died ({name})", file=sys.stderr, flush=True)
        return False

    def _end(self, signum: int, frame: object) -> None:
        self._signals += 1
        if self._signals == 1:
            self._signalled = time.monotonic()
            if self._stages is not None:
                self._stages.end()
            self._drain()
            if signum == signal.SIGINT:
                line = "fastdeployserver: ending, when no picture is being drawn or after"
                line += f" {self._exit_timeout:g} s; a second Ctrl-C ends it at once\n"
                interrupts.tell(line.encode())
        elif self._process is not None:
            _kill_group(self._process.pid)

    def _drain(self) -> None:
        """Send SIGTERM, once, when no stage is at work or the time for that is over."""
        if self._process is None or self._terminated:
            return
        if self._stages.idle or time.monotonic() - self._signalled > self._exit_timeout:
            self._terminated = True
            self._process.terminate()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """What would end this process waits for the block's end: for the time in which a child starts.

    An interrupt that comes while Python forks would be lost, and a lock would stay taken.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def end_with_parent() -> None:
    """In a new child process: have it get SIGTERM when its parent ends, however that ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def _ended(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_group(group: int) -> bool:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _end_group(group: int) -> None:
    deadline = time.monotonic() + 10
    while _kill_group(group) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)
