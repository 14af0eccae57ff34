"""A network under ONNX Runtime, called through Triton or over a channel of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from triptych.denoise.deep_cache import DeepCache
from triptych.errors import InvalidRequest
from triptych.fastdeploy.kept_tensors import KeptTensors
from triptych.fastdeploy.network import Network
from triptych.ipc import channel
from triptych.lora.folder import Adapters
from triptych.stages import deep_cache, loras, triton


class ServedNetwork:
    """Answers Triton's requests and, with the parameter `channel`, those of a Channel."""

    def __init__(self, model: triton.Model) -> None:
        self._model = model
        # Whoever reaches Triton's ports fills the one, unet_loop alone the other.
        self._kept, self._kept_over_channel = KeptTensors(), KeptTensors()
        self._network: Network | None = None
        self._listener: channel.Listener | None = None
        path = channel.socket_path(model.name)
        if model.parameters.get("channel") == "true" and path:
            self._listener = channel.Listener(path, self._answer, model.explain)
        try:
            self._do(self._load)
        except BaseException:
            self.close()
            raise
        triton.log(f"{model.name}: runs on {self._network.provider}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's responses, of one run where the requests' shapes allow it."""
        return self._model.answer_together(
            requests, lambda calls: self._do(lambda: self._run(calls, self._kept))
        )

    def close(self) -> None:
        """Answer no more calls over a channel."""
        if self._listener is not None:
            self._listener.close()

    def _load(self) -> None:
        """In the thread that answers calls; the first one may come before the job to load."""
        if self._network is None:
            model = self._model
            folder = loras.folder_of_network(model)
            self._network = Network(model.folder, model.config, model.device, folder)

    def _do(self, job: Callable[[], Any]) -> Any:
        return job() if self._listener is None else self._listener.do(job)

    def _run(
        self, calls: Sequence[tuple[dict[str, np.ndarray], Mapping[str, Any]]], kept: KeptTensors
    ) -> list[Any]:
        """Each call's outputs or exception; what a call says is to be kept is, if it succeeds."""
        results: list[Any] = []
        adapters, caches = {}, {}
        for at, (tensors, parameters) in enumerate(calls):
            try:
                asked = loras.asked(parameters), deep_cache.asked(parameters)
                results.append(kept.complete(tensors, parameters))
                adapters[at], caches[at] = asked
            except Exception as error:
                results.append(error)
        plain = [at for at, cache in caches.items() if cache is None]
        answers = dict(
            zip(
                plain,
                self._network.run([results[at] for at in plain], [adapters[at] for at in plain]),
            )
        )
        for at, cache in caches.items():
            if cache is not None:
                answers[at] = self._run_deep_cached(results[at], adapters[at], cache, kept)
        for at, outputs in answers.items():
            if not isinstance(outputs, Exception):
                kept.keep(results[at], calls[at][1])
            results[at] = outputs
        return results

    def _run_deep_cached(
        self,
        tensors: dict[str, np.ndarray],
        adapters: Adapters,
        cache: DeepCache,
        kept: KeptTensors,
    ) -> dict[str, np.ndarray] | Exception:
        try:
            if adapters:
                raise InvalidRequest("cache_interval", "over 1", "1 with LoRAs")
            return self._network.run_deep_cached(tensors, cache, kept.features)
        except Exception as error:
            return error

    def _answer(self, tensors: dict[str, np.ndarray], parameters: Mapping[str, str]) -> np.ndarray:
        self._load()
        (result,) = self._run([(tensors, parameters)], self._kept_over_channel)
        if isinstance(result, Exception):
            raise result
        (output,) = result.values()
        return output
