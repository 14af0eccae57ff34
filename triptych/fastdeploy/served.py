"""A network between its callers, through Triton or on a line of their own, and ONNX Runtime."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from triptych import line, triton
from triptych.fastdeploy.kept import Kept
from triptych.fastdeploy.network import Network


class ServedNetwork:
    """Answers Triton's requests and, with the parameter `line`, those of another stage's Line."""

    def __init__(self, model: triton.Model) -> None:
        self._model = model
        self._network = Network(model.folder, model.config, model.device)
        self._kept = Kept()
        self._turn = threading.Lock()
        self._exchange: line.Exchange | None = None
        folder = line.folder()
        if model.parameters.get("line") == "true" and folder:
            path = folder / f"{model.name}.{os.getpid()}.line"
            self._exchange = line.Exchange(path, self._answer, model.explain)
        triton.log(f"{model.name}: runs on {self._network.provider}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """What Triton's `execute` returns."""
        with self._turn:
            return self._model.answer_together(requests, self._network.run, self._kept.complete)

    def close(self) -> None:
        if self._exchange is not None:
            self._exchange.close()

    def _answer(self, tensors: dict[str, np.ndarray], parameters: Mapping[str, str]) -> np.ndarray:
        with self._turn:
            (result,) = self._network.run([self._kept.complete(tensors, parameters)])
        if isinstance(result, Exception):
            raise result
        (output,) = result.values()
        return output
