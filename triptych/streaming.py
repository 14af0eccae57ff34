"""A picture over a stream of Triton's gRPC: its steps and previews, then the file."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor

from triptych.errors import kind_of

_BROKEN = re.compile(
    "RST_STREAM|Stream removed|Socket closed|Connection reset|upstream connect|no healthy upstream"
    "|failed to connect"
)
"""gRPC's and Envoy's words for a connection that broke below a request."""

_FULL = "Exceeds maximum queue size"
"""Triton's own words."""

UNANSWERED = 20
"""Seconds without an acknowledgement of what was sent, after which a connection is given up.

A machine that vanishes ends no connection: Linux alone would send again for a quarter of an hour.
"""

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_timeout_ms", 1000 * UNANSWERED),
    # Without it gRPC leaves TCP_USER_TIMEOUT alone. Servers end a connection that is asked whether
    # it lives more often than every 300 s.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.use_local_subchannel_pool", 1),
]
"""gRPC's options: messages of any length, UNANSWERED, and a connection of its own."""

SETTLES = 0.2
"""Seconds from a connection's loss to another try.

gRPC may not know of it sooner, and lose a call that is made on the same connection.
"""


def patience(timeout: float | None) -> float | None:
    """gRPC's deadline, in seconds, for a request with this `timeout` in its INPUT_0: 1 s later.

    So the server ends the request before gRPC does. gRPC's cancel, where it meets the answer on its
    way, kills a Triton before 25.01.
    """
    return None if timeout is None else timeout + 1


def lost(error: InferenceServerException) -> bool:
    """Whether the connection broke with the request on it, which another try may get served.

    What a server says in its own words, such as that its queue is full, is no loss.
    """
    text = error.message() or ""
    if kind_of(text) or _FULL in text:
        return False
    return str(error.status()) == "StatusCode.UNAVAILABLE" or broken(text)


def broken(text: str) -> bool:
    """Whether an error's text says that the connection broke."""
    return bool(_BROKEN.search(text))


@dataclass(frozen=True)
class Step:
    """`step` of `total` calls of the UNet are made; `preview` is a small PNG's bytes, or None."""

    step: int
    total: int
    preview: bytes | None


class Streams:
    """A connection to a server, for any number of threads and streams."""

    def __init__(self, url: str) -> None:
        self._channel = grpc.insecure_channel(url, options=CHANNEL)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def start(
        self,
        model: str,
        request: bytes,
        preview_every: int | None,
        timeout: float | None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Stream:
        """Ask `model`, one that streams, for the picture of `request`, an INPUT_0.

        `request_id` is Triton's id of the request, `headers` the call's metadata.
        """
        asked = service_pb2.ModelInferRequest(model_name=model, id=request_id)
        asked.inputs.add(name="INPUT_0", datatype="BYTES", shape=[1, 1])
        asked.raw_input_contents.append(len(request).to_bytes(4, "little") + request)
        if preview_every is not None:
            asked.parameters["preview_every"].int64_param = preview_every
        metadata = list((headers or {}).items())
        patient = patience(timeout)
        call = self._stub.ModelStreamInfer(iter([asked]), timeout=patient, metadata=metadata)
        return Stream(call)

    def close(self) -> None:
        """End the connection and every stream on it."""
        self._channel.close()


class Stream:
    """One picture's stream: iterate over it; `cancel` may be called from any thread."""

    def __init__(self, call: grpc.Call) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Step | bytes]:
        """Each Step as it comes, then OUTPUT_0, the base64 of the picture's file.

        Raises InferenceServerException, as tritonclient's other calls do.
        """
        # The picture, or the error, is told after the stream's own end: one that is left between
        # the two stays open inside of Triton 24.10, which waits for it for 30 s when it is stopped.
        picture = failure = None
        try:
            for response in self._call:
                if response.error_message:
                    failure = _exception(response.error_message, None)
                    continue
                for told in _told(response.infer_response):
                    if isinstance(told, Step):
                        yield told
                    else:
                        picture = told
        except grpc.RpcError as error:
            raise _exception(error.details(), str(error.code())) from error
        if failure is not None:
            raise failure
        if picture is not None:
            yield picture

    def cancel(self) -> None:
        """End the stream, and the work for it; the iteration raises an error of code CANCELLED."""
        self._call.cancel()


def _told(response: service_pb2.ModelInferResponse) -> Iterator[Step | bytes]:
    tensors = {}
    for output, raw in zip(response.outputs, response.raw_output_contents):
        is_text = output.datatype == "BYTES"
        array = deserialize_bytes_tensor(raw) if is_text else np.frombuffer(raw, np.int32)
        tensors[output.name] = array.item()
    if "step" in tensors:
        preview = tensors.get("preview")
        yield Step(tensors["step"], tensors["total"], preview and base64.b64decode(preview))
    if "OUTPUT_0" in tensors:
        yield tensors["OUTPUT_0"]


def _exception(text: str, status: str | None) -> InferenceServerException:
    """`status` is None inside of a stream: Triton tells an error's text alone there.

    From 24.08 on it could end a failed stream with gRPC's status, if asked to; 24.10 then handles
    it as cancelled too.
    """
    if status is None:
        kind = kind_of(text)
        code = kind.code if kind else "INTERNAL"
        status = f"StatusCode.{'INVALID_ARGUMENT' if code == 'INVALID_ARG' else code}"
    return InferenceServerException(text, status)
