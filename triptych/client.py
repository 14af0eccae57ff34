"""Pictures from a server, over gRPC: `Client().generate("a red circle").save("out.png")`."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from triptych import streaming
from triptych.addresses import check_url, speaks_http
from triptych.client_errors import (
    ClientError,
    GivenUp,
    NotReady,
    NotThere,
    Overloaded,
    Refused,
    TimedOut,
)
from triptych.errors import Expired, kind_of, plain
from triptych.names import MODEL, Names, models
from triptych.picture.metadata import read_settings
from triptych.picture_stream import PictureStream
from triptych.settings import PICTURES, WIDEST, Settings
from triptych.streaming import Stream, Streams


@dataclass(frozen=True)
class Picture:
    """A picture from the server.

    `file`: the image file's bytes. `settings`: what it was made with, the seed included,
    read from the file. `seconds`: from request to answer.
    """

    file: bytes
    settings: Settings
    seconds: float

    @property
    def image(self) -> Image.Image:
        """The decoded picture; ClientError if it is larger than any server's limits allow."""
        picture = Image.open(io.BytesIO(self.file), formats=("PNG", "JPEG", "WEBP"))
        if picture.width * picture.height > WIDEST.max_pixels:
            size = f"{picture.width}x{picture.height}"
            raise ClientError(f"the picture is {size}, more than {WIDEST.max_pixels} pixels")
        picture.load()
        return picture

    def save(self, path: str | Path) -> None:
        """Write the file, as it came."""
        Path(path).write_bytes(self.file)


class Client:
    """A connection to a server; any number of threads may use it. Close it, or use `with`."""

    def __init__(self, url: str = "localhost:8001") -> None:
        """`url`: host:port of the server's gRPC, Refused for anything else. Nothing is sent yet."""
        check_url(url)
        self._url = url
        self._server = triton.InferenceServerClient(url, channel_args=streaming.CHANNEL)
        self._streams = Streams(url)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it the calls that still wait."""
        self._server.close()
        self._streams.close()

    def generate(
        self, prompt: str, timeout: float | None = None, model: str = MODEL, **settings: Any
    ) -> Picture:
        """The picture of a prompt, drawn by one of the server's `models`.

        `settings`: any of `triptych.settings.PICTURE_KEYS` by name; the server's defaults for
        those not given; `image` and `mask_image` too, a file's bytes or its base64. `timeout` in
        seconds, after which the server ends its work too; with None it takes as long as it takes.
        Raises a ClientError.
        """
        started = time.monotonic()
        asked = _request(prompt, timeout, settings)
        answer = self.ask(model, timeout, INPUT_0=_text(asked))
        try:
            return self._picture(answer["OUTPUT_0"].item(), started)
        except (AttributeError, KeyError, ValueError) as error:
            raise self._no_picture(error) from error

    def stream(
        self,
        prompt: str,
        timeout: float | None = None,
        preview_every: int | None = None,
        model: str = MODEL,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> PictureStream:
        """The picture of a prompt while it is made, with the arguments of `generate`.

        Iterate over the result: it gives a Step after each call of the UNet and the Picture at the
        end. A Step has a preview every `preview_every` calls; never with 0, as often as the server
        is set to with None. `request_id` names the request in Triton's traces and log; `headers` go
        along as gRPC metadata, for instance a `traceparent`.
        """
        names = Names(model)

        def start(seconds: float | None) -> Stream:
            asked = _request(prompt, seconds, settings)
            own = request_id, headers
            return self._streams.start(names.stream, asked, preview_every, seconds, *own)

        def has_room() -> bool:
            # A refusal of this call, unlike a stream's, is seen by Envoy, which asks others.
            with contextlib.suppress(ClientError):
                return bool(self.settings_of(prompt, model, **settings))
            return False

        return PictureStream(self, start, has_room, timeout, names.stream)

    def _picture(self, output: bytes, started: float) -> Picture:
        try:
            file = base64.b64decode(output, validate=True)
            return Picture(file, read_settings(file), time.monotonic() - started)
        except (TypeError, ValueError) as error:
            raise self._no_picture(error) from error

    def _no_picture(self, error: Exception) -> ClientError:
        return ClientError(f"the server answered with no picture of ours: {error}")

    def _explained(
        self, error: InferenceServerException, timeout: float | None, model: str = MODEL
    ) -> ClientError:
        status, message = str(error.status()), plain(error.message())
        if status == "StatusCode.INVALID_ARGUMENT":
            return Refused(message)
        if status == "StatusCode.DEADLINE_EXCEEDED":
            return self._timed_out(timeout)
        if status == "StatusCode.CANCELLED":
            kind = kind_of(message)
            if kind and kind.error is Expired:
                return self._timed_out(timeout)
            return GivenUp("cancelled")
        if status in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND"):
            # gRPC's own code for a missing server is also Triton's for a full queue.
            return self._unavailable(message, model)
        return ClientError(f"the server failed: {message}")

    def check(self, model: str = MODEL) -> None:
        """Raise NotThere or NotReady unless the server serves `model`."""
        try:
            self._server.is_server_live(client_timeout=5)
        except InferenceServerException as error:
            told = f"no server at {self._url}: start one with `make web` or `make serve`, outside"
            told += " of the checkout with `fastdeployserver --model-repository=FOLDER`, or give"
            told += " the address of one that runs as --url"
            if speaks_http(self._url):
                told = f"{self._url} is no gRPC port, it speaks HTTP: give the server's gRPC port"
                told += " as --url, which is localhost:8001 unless --grpc-port says otherwise"
            raise NotThere(told) from error
        try:
            ready = self._server.is_model_ready(model, client_timeout=5)
        except InferenceServerException:
            ready = False
        if not ready:
            told = f"{self._url} is not ready: {model} is not loaded"
            with contextlib.suppress(InferenceServerException):
                there = self._models()
                told += f"; there is {', '.join(there)}" if there else ""
            raise NotReady(told)

    def models(self) -> list[str]:
        """The models that the server draws with now, `sd_ensemble` first; raises a ClientError."""
        try:
            return self._models()
        except InferenceServerException as error:
            raise self._explained(error, 5) from error

    def _models(self) -> list[str]:
        told = self._twice(self._server.get_inference_statistics, client_timeout=5)
        return models(one.name for one in told.model_stats)

    def settings_of(self, prompt: str, model: str = MODEL, **settings: Any) -> Settings:
        """What `generate` would draw the picture with; nothing is drawn. Raises a ClientError."""
        asked, tokenizer = _request(prompt, None, settings), Names(model).stage("tokenizer")
        answer = self.ask(tokenizer, 30, {"list": "settings"}, INPUT_0=_text(asked))
        return Settings.from_json(answer["settings"].item())

    def loras(self, model: str = MODEL) -> list[str]:
        """The LoRAs that pictures of `model` can be drawn with now; raises a ClientError."""
        tokenizer = Names(model).stage("tokenizer")
        try:
            # A server that knows no lists reads the text, which is no request, and refuses it.
            answer = self.ask(tokenizer, 30, {"list": "loras"}, INPUT_0=_text(b"{}"))
        except Refused:
            return []
        return json.loads(answer["settings"].item())

    def config(self, model: str) -> Any:
        """The config.pbtxt of a model as protobuf, or a ClientError."""
        try:
            return self._twice(self._server.get_model_config, model, client_timeout=5).config
        except InferenceServerException as error:
            raise self._explained(error, 5, model) from error

    def ask(
        self,
        model: str,
        timeout: float | None = None,
        parameters: dict[str, str] | None = None,
        **tensors: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The outputs, by name, of one of the server's models, for instance of a stage.

        `parameters` are the request's own. `tensors` are its inputs by name, each with the batch as
        its first axis. Raises a ClientError.
        """
        started, inputs = time.monotonic(), []
        for name, array in tensors.items():
            inputs.append(triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
        try:
            patience = streaming.patience(timeout)
            result = self._twice(
                self._server.infer, model, inputs, client_timeout=patience, parameters=parameters
            )
        except InferenceServerException as error:
            raise self._explained(error, timeout, model) from error
        if timeout is not None and time.monotonic() > started + timeout:
            raise self._timed_out(timeout)
        names = [output.name for output in result.get_response().outputs]
        return {name: result.as_numpy(name) for name in names}

    @staticmethod
    def _twice(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What `call` gives; it is made once more where the connection breaks below it."""
        try:
            return call(*arguments, **named)
        except InferenceServerException as error:
            if not streaming.lost(error):
                raise
        time.sleep(streaming.SETTLES)
        return call(*arguments, **named)

    def _timed_out(self, timeout: float | None) -> TimedOut:
        return TimedOut(f"no answer from the server within {timeout} s")

    def _unavailable(self, message: str, model: str) -> ClientError:
        try:
            self.check(model)
        except ClientError as error:
            return error
        kind = kind_of(message)
        if kind and kind.code == "NOT_FOUND":
            return NotReady(
                f"{self._url} was not ready: {model} was not loaded then, it is now: ask again"
            )
        if streaming.broken(message):
            return NotThere(
                f"the connection to {self._url} broke with the request on it: {message}"
            )
        return Overloaded(f"the server takes no more requests now: {message}")


def _text(text: bytes) -> np.ndarray:
    """A tensor of one text."""
    return np.array([[text]], dtype=object)


def _request(prompt: str, timeout: float | None, settings: dict[str, Any]) -> bytes:
    """INPUT_0; pictures that are given as bytes become base64."""
    asked = {"prompt": prompt, **settings}
    for name in PICTURES:
        if isinstance(asked.get(name), bytes):
            asked[name] = base64.b64encode(asked[name]).decode()
    if timeout is not None:
        asked["timeout"] = timeout
    return json.dumps(asked).encode()
