"""Weights that are inputs of a graph, and change from one set of LoRAs to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
import onnxruntime

from triptych.fastdeploy import onnx_nodes
from triptych.fastdeploy.lru import Lru
from triptych.lora import merging

Changes = Sequence[Tuple[Mapping[str, Any], float]]
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
        found = {
            name: self._whole(name, blocks)
            for name, blocks in merging.factors(self._places, changes).items()
        }
        matrices = [one for blocks in found.values() for block in blocks for one in block[2:]]
        return self._held(found), sum(one.nbytes for one in matrices)

    def switch(self, held: _Held) -> Mapping[str, Any]:
        """All weights, with a set's."""
        if self._now is not held:
            back = self._changed - held.names
            self._now, self._changed = None, self._changed | held.names
            if back:
                self._compute(self._held({name: self._whole(name, []) for name in back}))
            self._compute(held)
            self._now, self._changed = held, held.names
        return self.values

    def _whole(self, name: str, blocks: Sequence[merging.Block]) -> list[merging.Block]:
        """The blocks in a tensor's type, with such as add nothing where there are none."""
        dtype, shape = self._originals[name].dtype, _matrix(self._originals[name].shape)
        axis = blocks[0].axis if blocks else 0
        found: list[merging.Block] = []
        end = 0
        for start, block in [(block.start, block) for block in blocks] + [(shape[axis], None)]:
            if start > end:
                sizes = list(shape)
                sizes[axis] = start - end
                left, right = np.zeros((sizes[0], 1), dtype), np.zeros((1, sizes[1]), dtype)
                found.append(merging.Block(axis, end, left, right))
            if block is not None:
                left, right = _as(dtype, block.left), _as(dtype, block.right)
                found.append(block._replace(left=left, right=right))
                end = start + block.length
        return found

    def _held(self, found: Mapping[str, Sequence[merging.Block]]) -> _Held:
        layout = frozenset(
            (name, blocks[0].axis, tuple(block.length for block in blocks))
            for name, blocks in found.items()
        )
        session = self._sessions.get(layout, lambda: (self._adding(layout), 1))
        binding = session.io_binding()
        for name, blocks in found.items():
            for at, block in enumerate(blocks):
                binding.bind_ortvalue_input(f"{name}.left.{at}", self._copy(block.left))
                binding.bind_ortvalue_input(f"{name}.right.{at}", self._copy(block.right))
            self._bind(binding.bind_input, f"{name}.from", name, self._on_device[name])
            self._bind(binding.bind_output, f"{name}.to", name, self.values[name])
        return _Held(frozenset(found), session, binding)

    def _bind(self, bind: Callable, end: str, name: str, value: Any) -> None:
        """Have an input or output of the graph be `value`, seen as a matrix."""
        array = self._originals[name]
        bind(end, *self._device, array.dtype.type, _matrix(array.shape), value.data_ptr())

    def _compute(self, held: _Held) -> None:
        held.session.run_with_iobinding(held.binding)

    def _copy(self, array: np.ndarray) -> Any:
        # On the host an OrtValue is the array itself.
        return onnxruntime.OrtValue.ortvalue_from_numpy(array.copy(), *self._device)

    def _adding(
        self, layout: Iterable[tuple[str, int, tuple[int, ...]]]
    ) -> onnxruntime.InferenceSession:
        """What computes all of some tensors, each with its blocks' axis and their lengths."""
        fields = []
        for name, axis, lengths in layout:
            array = self._originals[name]
            shape, parts = _matrix(array.shape), []
            for at, length in enumerate(lengths):
                rows, columns = (length, shape[1]) if axis == 0 else (shape[0], length)
                left, right, rank = (f"{name}.{end}.{at}" for end in ("left", "right", "rank"))
                fields.append(onnx_nodes.graph_input(left, [rows, rank], array.dtype))
                fields.append(onnx_nodes.graph_input(right, [rank, columns], array.dtype))
                parts.append((left, right))
            fields.append(onnx_nodes.graph_input(f"{name}.from", shape, array.dtype))
            fields.append(onnx_nodes.graph_output(f"{name}.to", shape, array.dtype))
            if len(parts) == 1:
                fields.append(onnx_nodes.node("Gemm", [*parts[0], f"{name}.from"], f"{name}.to"))
                continue
            products = [f"{name}.product.{at}" for at in range(len(parts))]
            fields += map(onnx_nodes.node, ["MatMul"] * len(parts), parts, products)
            along = [onnx_nodes.integer("axis", axis)]
            fields.append(onnx_nodes.node("Concat", products, f"{name}.sum", along))
            fields.append(onnx_nodes.node("Add", [f"{name}.from", f"{name}.sum"], f"{name}.to"))
        return onnx_nodes.session(fields, self._device)


def _as(dtype: Any, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity in half precision makes no picture
        return np.ascontiguousarray(values, dtype)


def _matrix(shape: Sequence[int]) -> list[int]:
    return [shape[0], math.prod(shape[1:])]
