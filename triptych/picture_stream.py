"""A picture while it is made, asked for again where a server is lost or refuses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tritonclient.utils import InferenceServerException

from triptych.streaming import SETTLES, Step, Stream, lost

if TYPE_CHECKING:
    from triptych.client import Client, Picture


UNLOADS = 0.5
"""Seconds in which Envoy has found out that a server, without its models, is about to end."""


class PictureStream:
    """A picture that is being made; see `Client.stream`."""

    TRIES = 3
    """How often a picture is asked for at most."""

    def __init__(
        self,
        client: Client,
        start: Callable[[float | None], Stream],
        has_room: Callable[[], bool],
        timeout: float | None,
        model: str,
    ) -> None:
        """`start` asks for the picture, which is to come within so many seconds.

        `has_room` says whether a server takes the request now; `model` is the one that streams.
        """
        self._client = client
        self._start = start
        self._has_room = has_room
        self._timeout = timeout
        self._model = model
        self._started = time.monotonic()
        self._lost = self._cancelled = False
        self._lock = threading.Lock()
        self._stream = start(timeout)

    def __iter__(self) -> Iterator[Step | Picture]:
        """Raises a ClientError; GivenUp after `cancel`.

        A picture that was lost with its server is asked for once more: its steps then come from
        the first one again. So is one that a server refuses to begin while another has room.
        """
        told: Step | bytes | None = None
        for left in reversed(range(self.TRIES)):
            told = None
            try:
                for told in self._stream:
                    is_step = isinstance(told, Step)
                    yield told if is_step else self._client._picture(told, self._started)
                break
            except InferenceServerException as error:
                begun = told is not None
                if not (left and self._may_be_served(error, begun) and self._start_again()):
                    raise self._client._explained(error, self._timeout, self._model) from error
        if not isinstance(told, bytes):
            raise self._client._no_picture(EOFError("the stream ended"))

    def cancel(self) -> None:
        """Cancel, from any thread; the server stops after the UNet call that it is in."""
        with self._lock:
            self._cancelled = True
            self._stream.cancel()

    def _may_be_served(self, error: InferenceServerException, begun: bool) -> bool:
        """Whether another try makes sense after this error."""
        status = str(error.status())
        unavailable = status == "StatusCode.UNAVAILABLE"
        if lost(error) or (begun and unavailable):
            before, self._lost = self._lost, True
            if not before:
                time.sleep(SETTLES)
            return not before
        if status == "StatusCode.NOT_FOUND":
            time.sleep(UNLOADS)
        elif not unavailable:
            return False
        return self._has_room()

    def _start_again(self) -> bool:
        """Start again, if there is time left and nobody has cancelled; whether that is so."""
        seconds = self._timeout
        if seconds is not None:
            seconds -= time.monotonic() - self._started
        with self._lock:
            if self._cancelled or (seconds is not None and seconds <= 0):
                return False
            self._stream = self._start(seconds)
        return True
