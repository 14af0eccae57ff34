"""Stand-ins for Triton's `triton_python_backend_utils`, as releases differ in it."""

from __future__ import annotations

import json
import sys
import time
import types
from typing import NamedTuple

import numpy as np

from triptych.fastdeploy.kept_tensors import KeptTensors


class TritonModelException(Exception):
    pass


class Tensor:
    """Arguments have no names, as with pybind11."""

    def __init__(self, name, array, /):
        if array.dtype.kind == "U" or array.dtype == np.void:
            raise TritonModelException("Tensor dtype used for numpy_array is not support ...")
        self._name, self._array = name, array

    def name(self):
        return self._name

    def is_cpu(self):
        return True

    def as_numpy(self):
        return self._array


class DeviceTensor(Tensor):
    """A tensor in a GPU's memory; what `to_dlpack` gives is for `paddle()`."""

    def is_cpu(self):
        return False

    def as_numpy(self):
        raise TritonModelException("Tensor is stored in GPU and cannot be converted to NumPy.")

    def to_dlpack(self):
        return "dltensor", self._array


class InferenceResponse:
    """As up to 23.02 at least: the tensors must be given, also with an error."""

    def __init__(self, output_tensors, error=None):
        assert error is None or isinstance(error, OldError)
        self.tensors = {
            tensor.name(): tensor.as_numpy() for tensor in output_tensors if tensor.is_cpu()
        }
        self._output_tensors = list(output_tensors)
        self._error = error

    def output_tensors(self):
        return self._output_tensors

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error


class OldError:
    """TritonError of 21.10: a text, no code."""

    def __init__(self, message):
        self._message = message

    def message(self):
        return self._message


class Error(OldError):
    """TritonError of later releases."""

    INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = range(4)

    def __init__(self, message, code=INTERNAL):
        super().__init__(message)
        self._code = code

    def code(self):
        return self._code


class OldRequest:
    """A request of 21.10: inputs, and no more that matters here."""

    def __init__(self, **arrays):
        self._inputs = [Tensor(name, array) for name, array in arrays.items()]
        self.id = ""

    def inputs(self):
        return self._inputs

    def correlation_id(self):
        return 0

    def requested_output_names(self):
        return []

    def request_id(self):
        return self.id


class DecoupledOnlyRequest(OldRequest):
    """A request of 23.10, in a model that is not decoupled."""

    def get_response_sender(self):
        raise TritonModelException("must be called only when the model is using the decoupled ...")


class Request(OldRequest):
    """A request of 24.06 and later."""

    def __init__(self, **arrays):
        super().__init__(**arrays)
        self.sender = Sender()
        self.microseconds = 0
        self.own_parameters = {}
        self.context = None

    def trace(self):
        return Trace(self.context)

    def parameters(self):
        return json.dumps(self.own_parameters)

    def timeout(self):
        return self.microseconds

    def get_response_sender(self):
        return self.sender


class Trace(NamedTuple):
    """`context`: W3C's headers as JSON, None where the request is not traced."""

    context: str | None

    def get_context(self):
        return self.context


class Sender:
    def __init__(self):
        self.sent = []
        self.parts = []
        self.given_up = False

    def send(self, response, flags=0):
        assert not self.sent, "sent after the answer"
        (self.sent if flags == 1 else self.parts).append(response)

    def is_cancelled(self):
        assert not self.sent, "asked after the answer"
        return self.given_up


class Metric:
    def __init__(self):
        self.value = 0.0

    def increment(self, amount):
        self.value += amount

    def set(self, value):
        self.value = value


class MetricFamily:
    COUNTER, GAUGE = range(2)
    made: dict = {}

    def __init__(self, name, description, kind):
        assert description
        self._name, self._kind = name, kind

    def Metric(self, labels):
        metric = Metric()
        self.made[self._name, self._kind, tuple(labels.items())] = metric
        return metric


def module(release, unet, on_gpu=False, vae_encoder=None):
    """pb_utils of a `release`, "21.10" or "24.10"; `unet(inputs) -> array` answers BLS calls.

    `vae_encoder(sample) -> array` answers those of the model of that name.
    `on_gpu`: whether what it answers is in a GPU's memory, unless it is asked for elsewhere.
    """
    made = types.ModuleType("triton_python_backend_utils")
    made.Tensor = Tensor
    made.InferenceResponse = InferenceResponse
    made.TritonModelException = TritonModelException
    made.get_input_tensor_by_name = lambda request, name: _named(request.inputs(), name)
    made.get_output_tensor_by_name = lambda answer, name: _named(answer.output_tensors(), name)
    made.TritonError = OldError if release == "21.10" else Error

    class OldInferenceRequest:
        def __init__(
            self,
            request_id="",
            correlation_id=0,
            *,
            inputs,
            requested_output_names,
            model_name,
            model_version=-1,
        ):
            (self._name,) = requested_output_names
            self._network = {("unet", "out_sample"): unet}.get((model_name, self._name))
            if self._network is None:
                assert (model_name, self._name) == ("vae_encoder", "latent_parameters")
                self._network = vae_encoder
            self._inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}
            self._output = DeviceTensor if on_gpu else Tensor

        def exec(self):
            try:
                return InferenceResponse([self._output(self._name, self._network(**self._inputs))])
            except (RuntimeError, ValueError) as error:
                return InferenceResponse([], made.TritonError(str(error)))

    class InferenceRequest(OldInferenceRequest):
        """With parameters; the UNet keeps what it is told to, as this project's backend does."""

        def __init__(self, parameters=None, preferred_memory=None, **others):
            super().__init__(**others)
            self._parameters = parameters or {}
            if preferred_memory is not None:
                assert (preferred_memory.kind, preferred_memory.number) == ("CPU", 0)
                self._output = Tensor

        def exec(self):
            try:
                self._inputs = made.kept.complete(self._inputs, self._parameters)
            except Exception as error:
                return InferenceResponse([], made.TritonError(str(error)))
            response = super().exec()
            if not response.has_error():
                made.kept.keep(self._inputs, self._parameters)
            return response

    made.InferenceRequest = OldInferenceRequest
    if release != "21.10":
        made.kept = KeptTensors()
        made.InferenceRequest = InferenceRequest
        made.MetricFamily = MetricFamily
        made.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
        made.TRITONSERVER_MEMORY_CPU = "CPU"
        made.PreferredMemory = PreferredMemory
    return made


class PreferredMemory:
    def __init__(self, kind, number):
        self.kind, self.number = kind, number


def paddle(cuda=True):
    """Paddle, built for CUDA or not, as far as DLPack goes."""
    made = types.ModuleType("paddle")
    made.is_compiled_with_cuda = lambda: cuda
    fetched = made.fetched = []

    class DeviceArray:
        def __init__(self, capsule):
            kind, self._array = capsule
            assert kind == "dltensor"
            fetched.append(self._array.shape)

        def numpy(self):
            return np.array(self._array)

    made.utils = types.SimpleNamespace(dlpack=types.SimpleNamespace(from_dlpack=DeviceArray))
    return made


def _named(tensors, name):
    found = [tensor for tensor in tensors if tensor.name() == name]
    return found[0] if found else None


def install(monkeypatch, module):
    """Have the stages' modules, imported anew, find `module` as Triton's."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    for name in [name for name in sys.modules if name.startswith("triptych.stages.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(name)  # `from triptych.stages import ...` looks there first


LOOP_INPUTS = ("prompt_embeds", "negative_prompt_embeds", "settings", "pictures")


def initialize_args(folder, name="unet_loop", names=LOOP_INPUTS, **parameters):
    """What Triton gives a model's `initialize`; `folder` is the model's, `names` its inputs."""
    entries = {key: {"string_value": value} for key, value in parameters.items()}
    config = {"input": [{"name": name} for name in names], "parameters": entries}
    return {
        "model_name": name,
        "model_repository": str(folder),
        "model_version": "1",
        "model_config": json.dumps(config),
        "model_instance_device_id": "0",
    }


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def context(trace=TRACE, flags="01"):
    """That of a request which somebody's span `PARENT` has sent."""
    return json.dumps({"traceparent": f"00-{trace}-{PARENT}-{flags}"})


def no_noise(sample, timestep, encoder_hidden_states):
    """A UNet for `module`: a prediction that depends on each of its inputs, row by row."""
    assert timestep.shape == (len(sample), 1)
    means = encoder_hidden_states.mean(axis=(1, 2)) + timestep[:, 0] / 1000
    return np.tanh(sample + means[:, None, None, None]).astype(np.float32)


def answer(sent, seconds=10):
    """The response of a request that a stage's thread answers."""
    deadline = time.monotonic() + seconds
    while not sent.sender.sent:
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.005)
    (response,) = sent.sender.sent
    return response
