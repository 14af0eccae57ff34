"""One network, `model.onnx`, under ONNX Runtime: loaded, checked against its config, and run."""

from __future__ import annotations

import functools
import gc
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from triptych.denoise.deep_cache import DeepCache
from triptych.errors import InvalidRequest, one_line
from triptych.fastdeploy import network_files, openvino, providers, sessions, tuning
from triptych.fastdeploy.accelerators import Accelerators, parse
from triptych.fastdeploy.adapted import Adapted
from triptych.fastdeploy.bound import Bound
from triptych.fastdeploy.declared import ONNX_TYPES, check_profiles, declared
from triptych.fastdeploy.deep_cache import DeepCached
from triptych.fastdeploy.lru import Lru
from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.lora.folder import Adapters, LoraFolder

_THEIRS = (ort_errors.InvalidArgument, ort_errors.Fail, ort_errors.RuntimeException)
"""What ONNX Runtime raises for a run whose inputs it cannot compute with; OpenVINO the last."""


class Network:
    """A loaded network. `provider` is a text for the log: which provider runs it, and why.

    Exports differ in their types (INT32 or INT64 tokens, FP16 or FP32): inputs are converted to
    what the network takes, outputs to what its config.pbtxt declares.
    """

    def __init__(
        self,
        folder: Path,
        model_config: Mapping[str, Any],
        device: int = 0,
        loras: LoraFolder | None = None,
    ) -> None:
        """Load the network in `folder`, a version folder: its model.onnx, or see `network_files`.

        `loras` is where the files of `run`'s adapters are. Raises ModelFileError for a missing or
        damaged file, ConfigError for a config.pbtxt that does not fit the network or this backend.
        """
        self._folder, self._device, self._loras = folder, device, loras
        self._most_lora_bytes = tuning.lora_bytes(model_config)
        self._bound_to: tuple[Sequence[int], tuple[str, int]] | None = None
        self._adapted: Adapted | None = None
        self._deep_cached: DeepCached | None = None
        accelerators, graph_batches = parse(model_config), tuning.graph_batches(model_config)
        self._accelerators = accelerators
        self._max_rows = tuning.max_rows(model_config)
        if self._max_rows:
            graph_batches = tuple(one for one in graph_batches if one <= self._max_rows)
        reasons = providers.unusable(onnxruntime.get_available_providers())
        unfit = openvino.unfit(model_config["input"])
        if unfit:
            reasons[openvino.PROVIDER] = unfit

        def start(graphs: bool) -> None:
            more = tuning.cuda_options(graphs)
            chosen, self.provider = providers.choose(accelerators, reasons, device, more)
            self._bound: Bound | None = None
            fused = network_files.fused(folder)
            path = network_files.which(folder, chosen[0][0], accelerators.gpu_fp16)
            self._session = network_files.load(path, chosen, accelerators)
            asked, first = chosen[0][0], self._session.get_providers()[0]
            if first != asked:  # its file, its threads and its options are those of `asked`
                reasons[asked] = "it does not load here"
                return start(graphs)
            inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
            outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
            self._outputs = declared(model_config, "output", outputs, complete=False)
            declared(model_config, "input", inputs, complete=True)
            self._types = {name: ONNX_TYPES[tensor.type] for name, tensor in inputs.items()}
            self._shapes = {name: tensor.shape for name, tensor in inputs.items()}
            if first == providers.CUDA and accelerators.gpu_fp16 and path != fused:
                self.provider += f"; in single precision: no {fused.name}"
            self._on_engine = first == providers.TENSORRT
            if self._on_engine:
                check_profiles(accelerators, self._shapes)
            if first == providers.CUDA and graphs:
                self.bind(graph_batches, ("cuda", device))
            if first != providers.CPU:
                self._warm_up(accelerators, graph_batches, self._compute)
            self._chosen = chosen

        problem = tuning.no_graphs(onnxruntime.__version__)
        graphs, failed = bool(graph_batches) and not problem, None
        try:
            start(graphs)
        except Exception as error:
            if not (graphs and self.provider.startswith(providers.CUDA)):
                raise
            failed = one_line(error)
        if failed is not None:
            # Only here is the error gone, whose frames hold the session and its memory.
            self._session = self._bound = None
            gc.collect()
            start(graphs=False)
        problem = failed or problem
        if graph_batches and problem and self.provider.startswith(providers.CUDA):
            self.provider += f"; no CUDA graphs: {problem}"
        if self._chosen[0][0] in providers.ON_GPU and loras is not None and loras.names():
            self._expect_loras(graph_batches)

    def bind(self, batches: Sequence[int], device: tuple[str, int]) -> None:
        """Run on buffers on `device`, ONNX Runtime's name and number, padded up to `batches`."""
        self._bound_to = (batches, device)
        self._bound = Bound(self._session, self._types, list(self._outputs), batches, device)

    def _without_engine(self) -> tuple[Path, list[tuple[str, dict[str, Any]]]]:
        """What runs where TensorRT's engine cannot: its weights stay, and so do its shapes."""
        chosen = [one for one in self._chosen if one[0] != providers.TENSORRT]
        fp16 = self._accelerators.gpu_fp16
        return network_files.which(self._folder, chosen[0][0], fp16), chosen

    def _adapt(self) -> Adapted:
        """What runs the network with LoRAs; InvalidRequest if nothing can."""
        if self._loras is None:
            raise InvalidRequest("loras", "a request for one", "none: this network has no folder")
        path, chosen = self._without_engine()
        outputs, bound_to = list(self._outputs), self._bound_to
        device = bound_to[1] if bound_to else None
        if device is None and chosen[0][0] == providers.CUDA:
            device = ("cuda", self._device)

        def start(model: bytes, weights: Mapping[str, Any]) -> Callable:
            session = sessions.start(model, chosen, self._accelerators, str(path.parent))
            bound = None
            if bound_to is not None:
                bound = Bound(session, self._types, outputs, *bound_to, weights)
            return functools.partial(sessions.compute, session, bound, self._types, outputs)

        try:
            graph = OnnxGraph(path)
            return Adapted(graph, self._loras, start, device, self._most_lora_bytes)
        except ValueError as error:
            allowed = f"none: this network takes no LoRAs: {error}"
            raise InvalidRequest("loras", "a request for one", allowed) from None

    def run_deep_cached(
        self, tensors: Mapping[str, np.ndarray], asked: DeepCache, features: Lru
    ) -> dict[str, np.ndarray]:
        """The output for one request, whose images take and give `features`: see DeepCached."""
        self._check(tensors)
        if self._deep_cached is None:
            path, chosen = self._without_engine()

            def start(model: bytes) -> onnxruntime.InferenceSession:
                return sessions.start(model, chosen, self._accelerators, str(path.parent))

            self._deep_cached = DeepCached(path, start, self._bound_to)
        ((name, dtype),) = self._outputs.items()
        try:
            output = self._deep_cached.run(tensors, asked, features)
        except _THEIRS as error:
            raise self._explained(error, tensors) from None
        return {name: output.astype(dtype, copy=False)}

    def _expect_loras(self, graph_batches: Sequence[int]) -> None:
        """Load the graph for LoRAs and record its CUDA graphs before the first request for one.

        Not for files that leave this network as it is, or are for another model.
        """
        try:
            self._adapted = self._adapt()
            if self._adapted.expected():
                self._warm_up(self._accelerators, graph_batches, self._adapted.warm_up)
        except Exception as error:
            self._adapted = None
            self.provider += f"; not ready for LoRAs: {one_line(error)}"

    def run(
        self,
        requests: Sequence[Mapping[str, np.ndarray]],
        adapters: Sequence[Adapters] = (),
    ) -> list[dict[str, np.ndarray] | Exception]:
        """The outputs of each request, batch first; an exception in place of those that failed.

        Requests whose tensors differ in nothing but the batch, and that have the same `adapters`,
        share one run.
        """
        results: list[Any] = [None] * len(requests)
        groups: dict[tuple, list[int]] = {}
        for position, tensors in enumerate(requests):
            try:
                self._check(tensors)
            except InvalidRequest as error:
                results[position] = error
                continue
            shape = tuple([tensors[name].shape[1:] for name in self._shapes])
            own = adapters[position] if adapters else ()
            groups.setdefault((own, shape), []).append(position)
        for (own, _), positions in groups.items():
            outputs = self._run_group([requests[position] for position in positions], own)
            for position, output in zip(positions, outputs):
                results[position] = output
        return results

    def _run_group(
        self, requests: Sequence[Mapping[str, np.ndarray]], adapters: Adapters
    ) -> list[Any]:
        """The results of requests of one shape, run together; one by one if that fails."""
        try:
            return self._run_together(requests, adapters)
        except InvalidRequest as error:  # of the adapters, which all of them have
            return [error] * len(requests)
        except Exception as error:
            if len(requests) == 1:
                return [self._explained(error, requests[0])]
        return [result for request in requests for result in self._run_group([request], adapters)]

    def _explained(self, error: Exception, tensors: Mapping[str, np.ndarray]) -> Exception:
        """What ONNX Runtime says of one request, as the client's error where it is about that.

        A network that is loaded and has the memory that it needs can only fail for what it gets:
        a token out of the vocabulary, more tokens than positions.
        """
        reason = one_line(error)
        theirs = isinstance(error, _THEIRS)
        if not theirs or re.search("cuda|cudnn|cublas|tensorrt|alloc", reason, re.IGNORECASE):
            return error
        name, shape = next((name, tensor.shape) for name, tensor in tensors.items())
        allowed = f"values and sizes that the network has weights for ({reason[-160:]})"
        return InvalidRequest(name, shape, allowed)

    def _check(self, tensors: Mapping[str, np.ndarray]) -> None:
        """InvalidRequest, naming the tensor, for what the network cannot take."""
        for name, allowed in self._shapes.items():
            if name not in tensors:
                raise InvalidRequest(name, None, "every input of the network is needed")
            shape = tensors[name].shape
            fits = len(shape) == len(allowed) and all(
                not isinstance(size, int) or size == got for size, got in zip(allowed, shape)
            )
            if not fits or 0 in shape:
                sizes = [size if isinstance(size, int) else -1 for size in allowed]
                raise InvalidRequest(name, shape, f"shape {sizes}, -1 being any size over 0")

    def _run_together(
        self, requests: Sequence[Mapping[str, np.ndarray]], adapters: Adapters
    ) -> list[Any]:
        parts = {name: [tensors[name] for tensors in requests] for name in self._types}
        ends = list(accumulate([len(part) for part in next(iter(parts.values()))]))
        outputs = self._outputs_for(parts, ends[-1], adapters)
        results: list[dict[str, np.ndarray]] = [{} for _ in requests]
        for (name, dtype), output in zip(self._outputs.items(), outputs):
            if len(output) != ends[-1]:
                raise RuntimeError(f"{name}: {len(output)} rows came out for {ends[-1]}")
            output = output.astype(dtype, copy=False)
            for result, start, end in zip(results, [0, *ends], ends):
                result[name] = output[start:end]
        return results

    def _outputs_for(
        self, parts: Mapping[str, Sequence[np.ndarray]], rows: int, adapters: Adapters
    ) -> list[np.ndarray]:
        """The outputs for each input's parts, stacked, of that many rows, `max_rows` at a time."""
        most = self._max_rows
        if most and rows > most:
            whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
            found = []
            for start in range(0, rows, most):
                some = {name: [array[start : start + most]] for name, array in whole.items()}
                found.append(self._outputs_for(some, min(most, rows - start), adapters))
            return [np.concatenate(outputs) for outputs in zip(*found)]
        if adapters:
            if self._adapted is None:
                self._adapted = self._adapt()
            outputs = self._adapted.run(adapters, parts, rows)
            if outputs is not None:
                return outputs
        return self._compute(parts, rows)

    def _compute(self, parts: Mapping[str, Sequence[np.ndarray]], rows: int) -> list[np.ndarray]:
        """The outputs without LoRAs, in one run."""
        session, outputs = self._session, list(self._outputs)
        if self._on_engine:
            shapes = {name: (rows, *arrays[0].shape[1:]) for name, arrays in parts.items()}
            if not self._accelerators.built_for(shapes):
                session = self._beside
        return sessions.compute(session, self._bound, self._types, outputs, parts, rows)

    @functools.cached_property
    def _beside(self) -> onnxruntime.InferenceSession:
        """For sizes beyond the engine's, for which TensorRT would build one within the request."""
        return network_files.load(*self._without_engine(), self._accelerators)

    def _warm_up(
        self, accelerators: Accelerators, graph_batches: Sequence[int], compute: Callable
    ) -> None:
        """Run what is usual, opt_shape, in every batch that has a graph, else in its own.

        Finds cuDNN's algorithms, builds TensorRT's engine and records graphs before the first
        request.
        """
        usual = accelerators.shapes.get("opt_shape")
        if not usual:
            return
        batches = graph_batches if self._bound else {shape[0] for shape in usual.values()}
        for batch in batches:
            zeros = {
                name: [np.zeros((batch, *usual[name][1:]), dtype)]
                for name, dtype in self._types.items()
            }
            compute(zeros, batch)
