"""A network under ONNX Runtime, called through Triton or over a channel of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from triptych.fastdeploy.kept_tensors import KeptTensors
from triptych.fastdeploy.network import Network
from triptych.ipc import channel
from triptych.stages import triton


class ServedNetwork:
    """Answers Triton's requests and, with the parameter `channel`, those of a Channel."""

    def __init__(self, model: triton.Model) -> None:
        self._model = model
        # Names are of one kind of caller each, which has a thread of its own.
        self._kept, self._kept_over_channel = KeptTensors(), KeptTensors()
        self._listener: channel.Listener | None = None
        path = channel.socket_path(model.name)
        if model.parameters.get("channel") == "true" and path:
            self._listener = channel.Listener(path, self._answer, model.explain)
        try:
            self._network = self._do(lambda: Network(model.folder, model.config, model.device))
        except BaseException:
            self.close()
            raise
        triton.log(f"{model.name}: runs on {self._network.provider}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """What Triton's `execute` returns."""
        return self._model.answer_together(requests, self._run, self._kept.complete)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def _run(self, batch: list[dict[str, np.ndarray]]) -> list[Any]:
        return self._do(lambda: self._network.run(batch))

    def _do(self, job: Callable[[], Any]) -> Any:
        return job() if self._listener is None else self._listener.do(job)

    def _answer(self, tensors: dict[str, np.ndarray], parameters: Mapping[str, str]) -> np.ndarray:
        (result,) = self._network.run([self._kept_over_channel.complete(tensors, parameters)])
        if isinstance(result, Exception):
            raise result
        (output,) = result.values()
        return output
