"""Calls of the served models, for the tests."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import urllib.error
import urllib.request

import numpy as np
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import serialize_byte_tensor

from triptych.server import restricted
from triptych.server.running import RunningServer

_TYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64", "object": "BYTES"}

SMALL = {"height": 128, "width": 128, "num_inference_steps": 3, "scheduler": "ddim", "seed": 7}
"""Settings of a picture that takes little time."""

PRIVATE = re.compile(r'/\w+/|Traceback|File "|triton_python_backend|triptych_[0-9a-f]{8}')
"""What no answer may tell of the machine."""

SECRET = "for this test"
"""What a server is to be started with, in `restricted.VARIABLE`, whose models a test loads."""


def request(prompt: str = "a red circle on a blue background", **settings) -> bytes:
    """INPUT_0 for one picture."""
    return json.dumps({"prompt": prompt, **settings}).encode()


def texts(*values: str | bytes) -> np.ndarray:
    """A TYPE_STRING tensor [values, 1]."""
    return np.array(values, dtype=object).reshape(-1, 1)


class Calls:
    """gRPC calls of single models, tensors in and out as NumPy arrays."""

    def __init__(self, url: str) -> None:
        self.client = grpcclient.InferenceServerClient(url)

    def close(self) -> None:
        self.client.close()

    def infer(self, model: str, inputs: dict, timeout: float = 120) -> dict:
        """The model's outputs; InferenceServerException with its error."""
        result = self.client.infer(model, tensors(inputs), client_timeout=timeout)
        return {out.name: result.as_numpy(out.name) for out in result.get_response().outputs}

    def infer_within(self, model: str, inputs: dict, seconds: float) -> dict:
        """The same with the request's own timeout in Triton's protocol."""
        microseconds = int(seconds * 1e6)
        result = self.client.infer(model, tensors(inputs), timeout=microseconds)
        return {out.name: result.as_numpy(out.name) for out in result.get_response().outputs}

    def start(self, model: str, inputs: dict) -> Started:
        """Begin a call and do not wait for it."""
        return Started(self.client, model, inputs)

    def pictures(self, *raw: bytes) -> list[bytes]:
        """The files that the ensemble gives for a batch of INPUT_0."""
        outputs = self.infer("sd_ensemble", {"INPUT_0": texts(*raw)})["OUTPUT_0"]
        assert outputs.shape == (len(raw), 1)
        return [base64.b64decode(output, validate=True) for output in outputs[:, 0]]

    def tokens(self, *raw: bytes) -> dict:
        """What the tokenizer gives for a batch of INPUT_0."""
        return self.infer("tokenizer", {"INPUT_0": texts(*raw)})

    def embeddings(self, tokens: dict) -> dict:
        """What the loop takes, made from the tokenizer's outputs by the text encoder."""
        made = {
            f"{prefix}prompt_embeds": self.infer("text_encoder", words_of(tokens, prefix))[
                "last_hidden_state"
            ]
            for prefix in ("", "negative_")
        }
        return {**made, "settings": tokens["settings"], "pictures": tokens["pictures"]}

    def loop_inputs(self, *raw: bytes) -> dict:
        """What the loop takes for a batch of INPUT_0."""
        return self.embeddings(self.tokens(*raw))


def words_of(tokens: dict, prefix: str = "") -> dict:
    """What the text encoder takes of the tokenizer's outputs."""
    names = ("input_ids", "prompt_weights", "clip_skip")
    return {name: tokens[prefix + name] for name in names}


class Started:
    """A call under way; `ended` is when its answer came."""

    def __init__(self, client, model: str, inputs: dict) -> None:
        self.result = self.error = self.ended = None
        self.begun = time.monotonic()
        self._call = client.async_infer(model, tensors(inputs), self._end)

    def _end(self, result, error) -> None:
        self.result, self.error = result, error
        self.ended = time.monotonic()

    def cancel(self) -> None:
        self._call.cancel()

    def wait(self, seconds: float = 120) -> Started:
        deadline = time.monotonic() + seconds
        while self.ended is None:
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.01)
        return self


def tensors(inputs: dict) -> list:
    made = []
    for name, array in inputs.items():
        tensor = grpcclient.InferInput(name, array.shape, _TYPES[array.dtype.name])
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def pixels(file: bytes) -> np.ndarray:
    """A picture's file as uint8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def get(url: str) -> str:
    with urllib.request.urlopen(f"http://{url}", timeout=30) as reply:
        return reply.read().decode()


def post(url: str, body: dict) -> tuple[int, dict]:
    """Status and JSON of an answer, errors too."""
    data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"http://{url}", data=data, timeout=120) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def infer_over_http(url: str, model: str, inputs: dict) -> tuple[int, bytes]:
    """Status and body of an inference over HTTP, tensors in binary after the JSON."""
    described, data = [], []
    for name, array in inputs.items():
        raw = serialize_byte_tensor(array).item() if array.dtype == object else array.tobytes()
        data.append(raw)
        described.append(
            {
                "name": name,
                "shape": array.shape,
                "datatype": _TYPES[array.dtype.name],
                "parameters": {"binary_data_size": len(raw)},
            }
        )
    head = json.dumps({"inputs": described}).encode()
    call = urllib.request.Request(
        f"http://{url}/v2/models/{model}/infer",
        b"".join([head, *data]),
        {"Inference-Header-Content-Length": str(len(head))},
    )
    try:
        with urllib.request.urlopen(call, timeout=120) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def metrics(url: str) -> dict[tuple[str, str], float]:
    """(metric, model) -> value, of those that have a model."""
    found = {}
    for line in get(f"{url}/metrics").splitlines():
        match = re.match(r'(\w+)\{.*model="([\w.-]+)".*\} (\S+)$', line)
        if match:
            found[match.group(1), match.group(2)] = float(match.group(3))
    return found


def metrics_when(url: str, holds, seconds: float = 5.0) -> dict[tuple[str, str], float]:
    """The metrics once `holds(them)`, or after `seconds`: Triton counts after it has answered."""
    deadline = time.monotonic() + seconds
    while not holds(found := metrics(url)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def order(server: RunningServer, what: str, model: str) -> tuple[int, str]:
    """Status and words of Triton's answer to `what`, load or unload; the server knows SECRET."""
    call = urllib.request.Request(
        f"http://{server.http}/v2/repository/models/{model}/{what}",
        b"{}",
        {restricted.HEADER: SECRET},
    )
    try:
        with urllib.request.urlopen(call, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]
