"""All that the served models need of Triton's Python backend, from Triton 21.10 to the current one.

Newer Tritons' additions are found by looking for them: here, in `reply` and in `metrics`. Imported
only inside Triton's Python processes: `triton_python_backend_utils` exists nowhere else.
"""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from triptych import config_pbtxt
from triptych.errors import ModelFileError, code_of, kind_of
from triptych.ipc.activity import Activity
from triptych.names import Names
from triptych.stages import device_memory


class Model:
    """What a served model knows of itself, from the arguments of Triton's `initialize`.

    `name` is the model's, `names` tells those of the stages that it works with, `folder` is its
    version folder, `config` its config.pbtxt as a dict, `device` the GPU that Triton gave this
    instance. `activity` tells the launcher of its work.
    """

    def __init__(self, args: Mapping[str, str]) -> None:
        self.name = args["model_name"]
        self.names = Names.of(self.name)
        self.config = json.loads(args["model_config"])
        self.device = int(args.get("model_instance_device_id") or 0)
        self.folder = Path(args["model_repository"]) / args["model_version"]
        self.activity = Activity(self.name)
        self._inputs = [entry["name"] for entry in self.config["input"]]

    @property
    def parameters(self) -> dict[str, str]:
        """The `parameters` of config.pbtxt."""
        entries = self.config.get("parameters") or {}
        return {key: value["string_value"] for key, value in entries.items()}

    def config_beside(self, stage: str) -> config_pbtxt.Message:
        """The config.pbtxt of another stage of the same model; empty if there is none.

        ModelFileError if it cannot be read.
        """
        path = self.folder.parents[1] / self.names.stage(stage) / "config.pbtxt"
        return config_pbtxt.read(path) if path.exists() else {}

    def count(self, name: str, default: int) -> int:
        """The parameter `name`, a whole number over 0; ValueError, naming it, for anything else."""
        text = self.parameters.get(name, str(default))
        if not text.isdecimal() or int(text) < 1:
            allowed = "a whole number over 0"
            raise ValueError(f"config.pbtxt: parameter {name}: got {text!r}; allowed: {allowed}")
        return int(text)

    def inputs(self, request: Any) -> dict[str, np.ndarray]:
        """The request's tensors, as NumPy arrays in the host's memory."""
        tensors = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                tensors[name] = _on_host(tensor)
        return tensors

    def answer(
        self,
        requests: Sequence[Any],
        work: Callable[[dict[str, np.ndarray], dict[str, Any]], dict[str, np.ndarray]],
    ) -> list[Any]:
        """Triton's responses, one for each request; where `work` raises, that request alone fails.

        `work` makes a request's outputs of its inputs and its parameters.
        """
        with self.activity:
            return [self._answer(request, work) for request in requests]

    def response(self, result: dict[str, np.ndarray] | Exception) -> Any:
        """Triton's response for what came out of a request; it never raises."""
        if isinstance(result, Exception):
            # Up to 23.02 at least the tensors must be given, also where there are none.
            return pb_utils.InferenceResponse(output_tensors=[], error=self._error(result))
        try:
            tensors = [pb_utils.Tensor(name, array) for name, array in result.items()]
            return pb_utils.InferenceResponse(tensors)
        except Exception as error:
            return self.response(error)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around what `initialize` does: errors reach Triton's log with the model, file and fix."""
        try:
            yield
        except ValueError as error:
            raise pb_utils.TritonModelException(f"{self.name}: {error}") from error

    def answer_together(
        self,
        requests: Sequence[Any],
        work: Callable[
            [list[tuple[dict[str, np.ndarray], Mapping[str, Any]]]],
            Sequence[dict[str, np.ndarray] | Exception],
        ],
    ) -> list[Any]:
        """Triton's responses: all requests' inputs and parameters through one call of `work`.

        It gives outputs or an exception for each; where it raises, all of them fail.
        """
        with self.activity:
            results: list[Any] = []
            for request in requests:
                try:
                    results.append((self.inputs(request), parameters(request)))
                except Exception as error:
                    results.append(error)
            able = [at for at, one in enumerate(results) if not isinstance(one, Exception)]
            try:
                answers = work([results[at] for at in able])
            except Exception as error:
                answers = [error] * len(able)
            for at, answer in zip(able, answers):
                results[at] = answer
            return [self.response(result) for result in results]

    def _answer(self, request: Any, work: Callable) -> Any:
        try:
            return self.response(work(self.inputs(request), parameters(request)))
        except Exception as error:
            return self.response(error)

    def _error(self, error: Exception) -> Any:
        return triton_error(self.explain(error), code_of(error))

    def explain(self, error: Exception) -> str:
        """What the client is told; the log gets all of it where the fault is not the client's."""
        if code_of(error) == "INTERNAL":
            log("".join(traceback.format_exception(None, error, error.__traceback__)), error=True)
        return f"{self.name}: {public(error)}"


class StageFailed(RuntimeError):
    """Another model, called from this one, gave an error; `code` is Triton's name of its kind."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # The error's own code does not come through such calls, up to Triton 24.10 at least.
        kind = kind_of(message)
        self.code = kind.code if kind else "INTERNAL"


def call(
    model: str,
    inputs: dict[str, np.ndarray],
    output: str,
    request_id: str = "",
    parameters: Mapping[str, Any] | None = None,
    trace: Any = None,
) -> np.ndarray:
    """One output of another served model, as `call_all` gives it."""
    return call_all(model, inputs, [output], request_id, parameters, trace)[0]


def call_all(
    model: str,
    inputs: dict[str, np.ndarray],
    outputs: list[str],
    request_id: str = "",
    parameters: Mapping[str, Any] | None = None,
    trace: Any = None,
) -> list[np.ndarray]:
    """Outputs of another served model; StageFailed with that model's error.

    `trace`: as `trace` gives it, where the call is to be seen.

    TypeError for `parameters` where this Triton's requests have none (before 23.11).
    """
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=outputs,
        inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
        **({"request_id": request_id} if request_id else {}),
        **({"parameters": _parameters(parameters)} if parameters else {}),
        **({"trace": trace} if trace is not None else {}),
        **_outputs_on_host(),
    )
    response = request.exec()
    if response.has_error():
        raise StageFailed(response.error().message())
    # Copies, since the tensors' memory is Triton's and ends with the response.
    return [
        np.array(_on_host(pb_utils.get_output_tensor_by_name(response, name))) for name in outputs
    ]


def _outputs_on_host() -> dict[str, Any]:
    """Arguments for a request to have its outputs in the host's memory; none on an old Triton."""
    if not hasattr(pb_utils, "PreferredMemory"):
        return {}
    return {"preferred_memory": pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)}


def check_reach(model: Model, stage: str) -> None:
    """Raise ValueError if what that stage answers to a `call` from `model` will be out of reach."""
    if not _outputs_on_host():
        accelerators = config_pbtxt.accelerators(model.config_beside(stage))
        device_memory.check(model.names.stage(stage), accelerators)


def _on_host(tensor: Any) -> np.ndarray:
    """The tensor's numbers in the host's memory, which may be Triton's own."""
    return tensor.as_numpy() if tensor.is_cpu() else device_memory.to_host(tensor)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as such a call takes them, up to Triton 24.10 at least: fractions are texts."""
    return {name: repr(one) if isinstance(one, float) else one for name, one in given.items()}


def parameters(request: Any) -> dict[str, Any]:
    """The request's own parameters, where this Triton tells them."""
    return json.loads(request.parameters()) if hasattr(request, "parameters") else {}


def deadline(request: Any) -> float | None:
    """When the request's own timeout is over, on the monotonic clock; None without one.

    It is the `timeout` of Triton's protocol, which the ensemble hands on; newer Tritons tell it.
    """
    microseconds = request.timeout() if hasattr(request, "timeout") else 0
    return time.monotonic() + microseconds / 1e6 if microseconds else None


def trace(request: Any) -> Any:
    """What a `call` takes to be seen in the request's trace; None where that is in none.

    Triton frees it when `execute` is over: by then the call must have come to another stage.
    """
    return request.trace() if trace_context(request) is not None else None


def trace_context(request: Any) -> dict[str, str] | None:
    """The place of the request in its trace, as W3C's headers `traceparent` and `tracestate`.

    None where it is in no trace of OpenTelemetry's, and before Triton 24.04.
    """
    trace = request.trace() if hasattr(request, "trace") else None
    context = trace.get_context() if hasattr(trace, "get_context") else None
    return json.loads(context) if context else None


def strings(texts: Sequence[str | bytes]) -> np.ndarray:
    """A TYPE_STRING tensor [texts, 1]."""
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    return np.array(encoded, dtype=object).reshape(-1, 1)


def log(line: str, error: bool = False) -> None:
    """A line in Triton's log."""
    logger = getattr(pb_utils, "Logger", None)
    if logger is None:
        print(line, flush=True)
    elif error:
        logger.log_error(line)
    else:
        logger.log_info(line)


# Triton shows the file of the caller and dies of one that is not all ASCII.
log.__code__ = log.__code__.replace(co_filename="triton.py")


_PATH = r"(?<![\w.])/[\w.+-]+(?:/[\w.+-]*)+"
_SHARED_MEMORY = r"triton_python_backend_shm\w*|triptych_[0-9a-f]{8}[\w.=-]*"
_PRIVATE = re.compile(f"{_PATH}|{_SHARED_MEMORY}")


def public(error: Exception) -> str:
    """An error's first line for the client, without paths and names of shared memory."""
    if isinstance(error, ModelFileError):
        return "the model's files cannot be read"
    lines = str(error).splitlines() or [type(error).__name__]
    text = _PRIVATE.sub("...", lines[0])
    return text if len(text) <= 300 else text[:297] + "..."


def triton_error(text: str, code: str) -> Any:
    number = getattr(pb_utils.TritonError, code, None)
    return pb_utils.TritonError(text) if number is None else pb_utils.TritonError(text, number)
