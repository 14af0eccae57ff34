"""Calls from one stage's process to another's beside Triton, through memory that both share.

The called stage has a Listener on a Unix socket in the folder of the server's run, the caller a
Channel. A call's tensors lie in memory that the caller made; their names, types and shapes go over
the socket as JSON.
"""

from __future__ import annotations

import array
import json
import logging
import math
import mmap
import os
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from triptych.ipc.activity import VARIABLE

logger = logging.getLogger(__name__)

AWAKE = 2e-3
"""Seconds around a message's expected time in which a process polls for it instead of sleeping.
To be woken up takes 0.1 ms on a virtual machine, at each end of each call."""

_MESSAGE = 2**17
_SUFFIX = ".channel"
_ALIGNED = 64


class ChannelFailed(Exception):
    """The called stage answered with an error, whose text this has."""


def socket_path(model: str) -> Path | None:
    """Where this process of `model` is to listen; None outside of a server's run."""
    folder = os.environ.get(VARIABLE)
    return Path(folder, f"{model}.{os.getpid()}{_SUFFIX}") if folder else None


def connect(model: str, number: int = 0) -> Channel | None:
    """A channel to one of the processes of `model` that listen now; None if none does.

    `number` chooses among them, in turn. Looking takes less than a millisecond: whoever lost a
    channel, or has none yet, may look again now and then, since a model can be loaded at any time.
    """
    folder = os.environ.get(VARIABLE)
    channels = []
    for path in sorted(Path(folder).glob(f"{model}.[0-9]*{_SUFFIX}")) if folder else ():
        try:
            channels.append(Channel(path))
        except OSError:  # its process was killed, or has just ended
            continue
    chosen = channels.pop(number % len(channels)) if channels else None
    for other in channels:
        other.close()
    return chosen


class Channel:
    """The caller's end; one call at a time."""

    def __init__(self, path: Path) -> None:
        """Connect to the Listener at `path`; OSError if there is none."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(path) as address:
                self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise
        self._memory = mmap.mmap(-1, _ALIGNED)
        self._arrival = select.poll()
        self._arrival.register(self._socket, select.POLLIN)
        self._usual = 0.0

    def call(self, inputs: Mapping[str, np.ndarray], parameters: Mapping[str, str]) -> np.ndarray:
        """The stage's output for `inputs`, a view of shared memory that the next call overwrites.

        Raises ChannelFailed with the stage's error; OSError if its process or Listener has ended.
        """
        tensors, size = [], 0
        for name, value in inputs.items():
            tensors.append((name, (value.dtype.str, value.shape, size)))
            size += -(-value.nbytes // _ALIGNED) * _ALIGNED
        # The output is about as large as one of the inputs.
        said = (
            ("tensors", tuple(tensors)),
            ("parameters", tuple(parameters.items())),
            ("free", size),
        )
        handed = self._grow(2 * size)
        for (_, how), value in zip(tensors, inputs.values()):
            _tensor(self._memory, *how)[...] = value
        self._socket.sendmsg([_encoded(said)], handed)
        answer = self._receive()
        if not answer:
            raise ConnectionResetError("the stage has hung up")
        answer = _decoded(answer)
        if "error" in answer:
            raise ChannelFailed(answer["error"])
        return _tensor(self._memory, *answer["tensor"])

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        """The next message, empty if the other end is closed.

        Sleeps for about as long as the last message took to come, then polls.
        """
        begun = time.perf_counter()
        self._arrival.poll(1e3 * max(0.0, self._usual - AWAKE))
        _look(lambda: self._arrival.poll(0), begun + self._usual + AWAKE)
        message = self._socket.recv(_MESSAGE)
        self._usual = time.perf_counter() - begun
        return message

    def _grow(self, size: int) -> list[tuple]:
        """Have `size` bytes of shared memory; if it is new, what passes it on in a message."""
        if size <= len(self._memory):
            return []
        file = os.memfd_create("triptych_channel")
        os.ftruncate(file, size)
        self._memory = mmap.mmap(file, size)
        self._file = os.fdopen(file, "rb")  # the one before it is closed
        return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]


class Listener:
    """The called stage's end: answers each call with what `work(tensors, parameters)` returns.

    `tensors` are valid during the call only. An exception of `work` reaches the caller as the text
    that `explain` makes of it. All calls are made in one thread, since a CUDA graph of ONNX Runtime
    can be replayed only in the thread that recorded it; `do` runs anything else there.
    """

    def __init__(
        self,
        path: Path,
        work: Callable[[dict[str, np.ndarray], dict[str, str]], np.ndarray],
        explain: Callable[[Exception], str],
    ) -> None:
        self._work = work
        self._explain = explain
        self._jobs: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._woken, self._wake = socket.socketpair()
        self._open = True
        self._callers: dict[socket.socket, mmap.mmap | None] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._path = path
        with _short(path) as address:
            self._socket.bind(address)
        self._socket.listen()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], Any]) -> Any:
        """What `job` returns or raises, called in the thread between two calls of `work`."""
        done: Future = Future()
        self._jobs.append((done, job))
        self._wake.send(b"j")
        return done.result()

    def close(self) -> None:
        """Hang up, after the call that is being answered, and take the socket away."""
        self._path.unlink(missing_ok=True)  # first, so that nobody calls who would be cut off
        self.do(self._close)
        self._thread.join()

    def _close(self) -> None:
        self._open = False

    def _run(self) -> None:
        with selectors.DefaultSelector() as ready, self._socket, self._woken, self._wake:
            ready.register(self._socket, selectors.EVENT_READ)
            ready.register(self._woken, selectors.EVENT_READ)
            while self._open:
                for key, _ in self._next(ready):
                    if key.fileobj is self._socket:
                        self._accept(ready)
                    elif key.fileobj is self._woken:
                        self._do_jobs()
                    elif not self._serve(key.fileobj):
                        ready.unregister(key.fileobj)
                        del self._callers[key.fileobj]
                        key.fileobj.close()
            for caller in self._callers:
                caller.close()

    def _accept(self, ready: selectors.BaseSelector) -> None:
        try:
            caller, _ = self._socket.accept()
        except OSError:  # too many open files, or it has gone already
            logger.exception("a caller was not let in")
            time.sleep(AWAKE)
            return
        self._callers[caller] = None
        ready.register(caller, selectors.EVENT_READ)

    @staticmethod
    def _next(ready: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        """The sockets that can be read. Polls first: the next call comes soon after the last."""
        return _look(lambda: ready.select(0), time.perf_counter() + AWAKE) or ready.select()

    def _do_jobs(self) -> None:
        for _ in self._woken.recv(_MESSAGE):
            done, job = self._jobs.popleft()
            try:
                done.set_result(job())
            except BaseException as error:
                done.set_exception(error)

    def _serve(self, caller: socket.socket) -> bool:
        """Answer one message; False if the caller has gone, or says what cannot be understood."""
        try:
            message, more, *_ = caller.recvmsg(_MESSAGE, socket.CMSG_SPACE(4))
            for _level, _kind, data in more:
                (file,) = array.array("i", data)
                self._callers[caller] = mmap.mmap(file, os.fstat(file).st_size)
                os.close(file)
            if message:
                caller.send(_encoded(self._answer(self._callers[caller], _decoded(message))))
        except OSError:
            return False
        except Exception:  # the thread serves others too
            logger.exception("a message was not understood")
            return False
        return bool(message)

    def _answer(self, memory: mmap.mmap, said: dict[str, Any]) -> tuple:
        try:
            tensors = {name: _tensor(memory, *how) for name, how in said["tensors"]}
            output = self._work(tensors, dict(said["parameters"]))
            how = (output.dtype.str, output.shape, said["free"])
            _tensor(memory, *how)[...] = output
        except Exception as error:
            return (("error", self._explain(error)),)
        return (("tensor", how),)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address for the socket at `path`, however long that is: the kernel takes 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@lru_cache(64)
def _encoded(said: tuple[tuple[str, Any], ...]) -> bytes:
    """A message as JSON. Most calls say the same, apart from the numbers in the shared memory."""
    return json.dumps(dict(said)).encode()


@lru_cache(64)
def _decoded(message: bytes) -> dict[str, Any]:
    return json.loads(message)


def _look(look: Callable[[], list], end: float) -> list:
    """Call `look` until it finds something or the time is `end`, without sleeping."""
    found: list = []
    while not found and time.perf_counter() < end:
        found = look()
        if not found:
            os.sched_yield()
    return found


def _tensor(memory: mmap.mmap, dtype: str, shape: Any, offset: int) -> np.ndarray:
    count = math.prod(shape)
    return np.frombuffer(memory, dtype, count, offset).reshape(shape)
