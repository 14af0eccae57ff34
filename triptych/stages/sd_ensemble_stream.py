"""The model sd_ensemble_stream: sd_ensemble with progress and previews before its answer.

So it is with NAME_stream and NAME, for a model of another name.
"""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from triptych.errors import InvalidRequest, Unavailable
from triptych.ipc import progress
from triptych.ipc.progress import Progress, Record
from triptych.limits import AT_A_TIME
from triptych.stages import triton
from triptych.stages.reply import Reply, replies
from triptych.stages.started_pool import started_pool

MOST_STEPS = 1000
"""The largest preview_every that makes sense."""


class StreamStage:
    """Answers a request with a response for each step that it sees, and then with the image.

    The life of a request:
    1. Started: it gets a Record, and a thread that calls the ensemble under the record's token.
    2. Followed: one thread for all requests reads the records and sends what is new; a request
       given up by its client stops its image.
    3. Answered: when the call is back, with its image or its error.
    """

    def __init__(self, model: triton.Model) -> None:
        progress.clear(model.name)
        self._model = model
        self._preview_every = _preview_every(model.parameters.get("preview_every", "5"))
        self._most = model.count("max_streams", AT_A_TIME)
        self._pool = started_pool(self._most, "streams")
        self._condition = threading.Condition()
        self._streams: list[_Stream] = []
        self._closed = False
        threading.Thread(target=self._follow, name="follow", daemon=True).start()

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """What Triton's `execute` returns: None, since all answers come later.

        A Triton whose Python models send one response only (21.10) gets the image alone.
        """
        awaited = replies(requests)
        if awaited is None:
            return self._model.answer(requests, lambda inputs, own: self._image(inputs, "", own))
        for request, reply in zip(requests, awaited):
            try:
                self._start(request, reply)
            except Exception as error:
                reply.send(self._model.response(error))
        return None

    def close(self) -> None:
        """Stop every image and end the threads when all are answered."""
        with self._condition:
            self._closed = True
            for stream in self._streams:
                stream.record.stop()
            self._condition.notify()
        self._pool.shutdown()

    def _start(self, request: Any, reply: Reply) -> None:
        inputs = self._model.inputs(request)
        parameters = triton.parameters(request)
        every = _preview_every(parameters.pop("preview_every", self._preview_every))
        trace = triton.trace(request)
        with self._condition:
            if len(self._streams) >= self._most:
                raise Unavailable(f"{self._most} images are streamed already; try later")
            stream = _Stream(reply, Record(self._model.name, every), request.request_id())
            self._streams.append(stream)
            self._model.activity.set(len(self._streams))
            self._condition.notify()
        self._pool.submit(self._run, stream, inputs, parameters, trace)
        while trace is not None and self._is_starting(stream):
            time.sleep(0.001)  # until Triton may free it

    def _is_starting(self, stream: _Stream) -> bool:
        """Whether the call of the ensemble has not come to a stage, nor to its end."""
        with self._condition:
            ended = stream not in self._streams or stream.reply.sent
            return not (ended or stream.record.begun())

    def _run(
        self,
        stream: _Stream,
        inputs: dict[str, np.ndarray],
        parameters: dict[str, Any],
        trace: Any,
    ) -> None:
        """Call the ensemble for a stream and answer it, whatever happens."""
        try:
            result: Any = self._image(inputs, stream.request_id, parameters, trace)
        except Exception as error:
            result = error
        with self._condition:
            self._streams.remove(stream)
            try:
                stream.tell(self._model)
                stream.record.close()
            finally:
                stream.reply.send(self._model.response(result))
                self._model.activity.set(len(self._streams))

    def _image(
        self,
        inputs: dict[str, np.ndarray],
        request_id: str,
        parameters: dict[str, Any],
        trace: Any = None,
    ) -> dict[str, np.ndarray]:
        """The answer of the ensemble."""
        ensemble, wanted = self._model.names.model, "OUTPUT_0"
        return {wanted: triton.call(ensemble, inputs, wanted, request_id, parameters, trace)}

    def _follow(self) -> None:
        """The thread that looks at all records, until the stage is closed."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._streams or self._closed)
                if self._closed:
                    return
                self._answer_if_lost()
                for stream in self._streams:
                    stream.follow(self._model)
            time.sleep(INTERVAL)

    def _answer_if_lost(self) -> None:
        """Where another stage's process died, a call of the ensemble may have no end."""
        try:
            self._model.activity.check_whole()
        except Unavailable as error:
            for stream in self._streams:
                stream.reply.send(self._model.response(error))


INTERVAL = 0.02
"""Seconds from one look at all records to the next."""


class _Stream:
    """One image: its record, its client, and the id of its call of the ensemble."""

    def __init__(self, reply: Reply, record: Record, asked_as: str) -> None:
        """`asked_as`: the id that its client gave the request, empty for none."""
        self.reply = reply
        self.record = record
        self.request_id = f"{asked_as}:{record.token}" if asked_as else record.token
        self._silent = False

    def follow(self, model: triton.Model) -> None:
        """Stop the image if its client has given it up, else send what is new."""
        if self.reply.cancelled():
            self.record.stop()
        else:
            self.tell(model)

    def tell(self, model: triton.Model) -> None:
        """Send the step and the preview, if they are new.

        Where that fails the log says why, and this client gets its image without any more of them.
        """
        if self._silent:
            return
        try:
            new = self.record.read()
            if new is not None:
                self.reply.send_part(model.response(_tensors(new)))
        except Exception as error:
            self._silent = True
            triton.log(f"{model.name}: progress is told no more: {error!r}", error=True)


def _tensors(new: Progress) -> dict[str, np.ndarray]:
    tensors = {
        "step": np.array([[new.step]], np.int32),
        "total": np.array([[new.total]], np.int32),
    }
    if new.preview is not None:
        file = io.BytesIO()
        Image.fromarray(new.preview).save(file, "PNG")
        tensors["preview"] = triton.strings([base64.b64encode(file.getvalue())])
    return tensors


def _preview_every(value: Any) -> int:
    """A number of steps out of a parameter, which may be a text; InvalidRequest otherwise."""
    is_text = isinstance(value, str) and value.isdecimal() and len(value) <= 9
    number = int(value) if is_text else value
    if type(number) is not int or not 0 <= number <= MOST_STEPS:
        allowed = f"a whole number of steps up to {MOST_STEPS}, or 0 for no previews"
        raise InvalidRequest("preview_every", value, allowed)
    return number
