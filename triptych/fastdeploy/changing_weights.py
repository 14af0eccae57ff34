"""Weights that are inputs of a graph, and change from one set of LoRAs to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from triptych.fastdeploy import onnx_nodes
from triptych.fastdeploy.lru import Lru
from triptych.lora import merging

Changes = Sequence[tuple[Mapping[str, Any], float]]
"""The layers and the scale of each LoRA of a set."""


class HostWeights:
    """Weights in the host's memory: a set's are given to the run in place of the originals."""

    def __init__(
        self, originals: Mapping[str, np.ndarray], places: Mapping[str, merging.Place]
    ) -> None:
        self.values: Mapping[str, Any] = originals
        self._places = places

    def hold(self, changes: Changes) -> tuple[Mapping[str, np.ndarray], int]:
        """What `switch` takes for a set: its weights; and how many bytes they have."""
        tensors = merging.merged(self._places, changes, self.values.__getitem__)
        held = {name: _as(self.values[name].dtype, values) for name, values in tensors.items()}
        return held, sum(values.nbytes for values in held.values())

    def switch(self, held: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """All weights, with a set's."""
        return {**self.values, **held}


class _Held(NamedTuple):
    names: frozenset
    session: onnxruntime.InferenceSession
    binding: Any


class DeviceWeights:
    """Weights at fixed addresses of a device, as CUDA graphs need: a set's are computed there.

    What is held of a set are its factors, which are small. Their products are added to the original
    weights when another set is switched to.
    """

    def __init__(
        self,
        originals: Mapping[str, np.ndarray],
        places: Mapping[str, merging.Place],
        device: tuple[str, int],
    ) -> None:
        """`device` is ONNX Runtime's name and number of it."""
        self._originals = originals
        self._places = places
        self._device = device
        self._on_device = {name: self._copy(array) for name, array in originals.items()}
        self.values: Mapping[str, Any] = {
            name: self._copy(array) for name, array in originals.items()
        }
        self._now: _Held | None = None
        self._changed: frozenset = frozenset()
        self._sessions = Lru(16)

    def hold(self, changes: Changes) -> tuple[_Held, int]:
        """What `switch` takes for a set; and how many bytes of the device it has."""
        factors = merging.factors(self._places, changes, lambda name: self._originals[name].shape)
        pairs = {
            name: [_as(self._originals[name].dtype, one) for one in pair]
            for name, pair in factors.items()
        }
        return self._held(pairs), sum(one.nbytes for pair in pairs.values() for one in pair)

    def switch(self, held: _Held) -> Mapping[str, Any]:
        """All weights, with a set's."""
        if self._now is not held:
            back = self._changed - held.names
            self._now, self._changed = None, self._changed | held.names
            if back:
                self._compute(self._held({name: self._nothing(name) for name in back}))
            self._compute(held)
            self._now, self._changed = held, held.names
        return self.values

    def _held(self, pairs: Mapping[str, Sequence[np.ndarray]]) -> _Held:
        names = frozenset(pairs)
        session = self._sessions.get(names, lambda: (self._adding(names), 1))
        binding = session.io_binding()
        for name, (left, right) in pairs.items():
            binding.bind_ortvalue_input(f"{name}.left", self._copy(left))
            binding.bind_ortvalue_input(f"{name}.right", self._copy(right))
            self._bind(binding.bind_input, f"{name}.from", name, self._on_device[name])
            self._bind(binding.bind_output, f"{name}.to", name, self.values[name])
        return _Held(names, session, binding)

    def _bind(self, bind: Callable, end: str, name: str, value: Any) -> None:
        """Have an input or output of the graph be `value`, seen as a matrix."""
        array = self._originals[name]
        bind(end, *self._device, array.dtype.type, _matrix(array.shape), value.data_ptr())

    def _nothing(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Factors whose product is zero."""
        rows, columns = _matrix(self._originals[name].shape)
        dtype = self._originals[name].dtype
        return np.zeros((rows, 1), dtype), np.zeros((1, columns), dtype)

    def _compute(self, held: _Held) -> None:
        held.session.run_with_iobinding(held.binding)

    def _copy(self, array: np.ndarray) -> Any:
        # On the host an OrtValue is the array itself.
        return onnxruntime.OrtValue.ortvalue_from_numpy(array.copy(), *self._device)

    def _adding(self, names: Iterable[str]) -> onnxruntime.InferenceSession:
        fields = []
        for name in names:
            array = self._originals[name]
            rows, columns = _matrix(array.shape)
            rank, ends = f"{name}.rank", [f"{name}.{end}" for end in ("left", "right", "from")]
            shapes = ([rows, rank], [rank, columns], [rows, columns])
            fields.append(onnx_nodes.node("Gemm", ends, f"{name}.to"))
            for end, shape in zip(ends, shapes):
                fields.append(onnx_nodes.graph_input(end, shape, array.dtype))
            fields.append(onnx_nodes.graph_output(f"{name}.to", [rows, columns], array.dtype))
        return onnx_nodes.session(fields, self._device)


def _as(dtype: Any, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity in half precision makes no picture
        return np.ascontiguousarray(values, dtype)


def _matrix(shape: Sequence[int]) -> list[int]:
    return [shape[0], math.prod(shape[1:])]
