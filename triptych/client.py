"""Pictures from a server, over gRPC: `Client().generate("a red circle").save("out.png")`."""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from triptych.image import read_settings
from triptych.settings import WIDEST, Settings

MODEL = "sd_ensemble"


class ClientError(Exception):
    """Why there is no picture; `exit_code` is what the command ends with."""

    exit_code = 1


class Refused(ClientError):
    """The request asks for what cannot be had: the text names the setting and what is allowed."""

    exit_code = 2


class NotThere(ClientError):
    """No server answers at the address."""

    exit_code = 3


class NotReady(ClientError):
    """The server is there, but has not loaded the model."""

    exit_code = 4


class Overloaded(ClientError):
    """The server is there and takes no more requests now."""

    exit_code = 5


class TimedOut(ClientError):
    """The picture did not come within the timeout."""

    exit_code = 6


@dataclass(frozen=True)
class Picture:
    """What a request gave.

    `file`: the image file's bytes. `settings`: what it was made with, the seed included, as the
    file tells. `seconds`: from request to answer.
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
        """`url`: host:port of the server's gRPC. Nothing is sent yet."""
        self._url = url
        self._server = triton.InferenceServerClient(url)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it the calls that still wait."""
        self._server.close()

    def generate(self, prompt: str, timeout: float | None = None, **settings: Any) -> Picture:
        """The picture of a prompt.

        `settings`: any of `triptych.settings.PICTURE_KEYS` by name; the server's defaults for
        those not given. `timeout` in seconds, after which the server ends its work too; none waits
        for ever. Raises a ClientError.
        """
        asked = {"prompt": prompt, **settings}
        if timeout is not None:
            asked["timeout"] = timeout
        request = json.dumps(asked).encode()
        tensor = triton.InferInput("INPUT_0", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[request]], dtype=object))
        started = time.monotonic()
        try:
            answer = self._server.infer(MODEL, [tensor], client_timeout=timeout)
        except InferenceServerException as error:
            raise self._explained(error, timeout) from error
        seconds = time.monotonic() - started
        try:
            file = base64.b64decode(answer.as_numpy("OUTPUT_0").item(), validate=True)
            return Picture(file, read_settings(file), seconds)
        except (AttributeError, TypeError, ValueError) as error:
            raise ClientError(f"{self._url} answered with no picture of ours: {error}") from error

    def _explained(self, error: InferenceServerException, timeout: float | None) -> ClientError:
        status, message = str(error.status()), error.message()
        if status == "StatusCode.INVALID_ARGUMENT":
            return Refused(message)
        ended_by_server = status == "StatusCode.CANCELLED" and "timeout: " in message
        if status == "StatusCode.DEADLINE_EXCEEDED" or ended_by_server:
            return TimedOut(f"no picture from {self._url} within {timeout} s")
        if status in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND"):
            # gRPC's own code for a missing server is also Triton's for a full queue.
            return self._unavailable(message)
        return ClientError(f"{self._url} failed: {message}")

    def _unavailable(self, message: str) -> ClientError:
        try:
            self._server.is_server_live(client_timeout=5)
        except InferenceServerException:
            return NotThere(
                f"no server at {self._url}: start one with"
                " `fastdeployserver --model-repository=model_repository`, or give its --url"
            )
        try:
            ready = self._server.is_model_ready(MODEL, client_timeout=5)
        except InferenceServerException:
            ready = False
        if not ready:
            return NotReady(f"{self._url} is not ready: {MODEL} is not loaded ({message})")
        return Overloaded(f"{self._url} takes no more requests now: {message}")
