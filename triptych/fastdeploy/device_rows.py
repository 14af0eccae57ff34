"""Rows of tensors that stay in a device's memory from one run to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from triptych.fastdeploy import onnx_nodes


class Rows:
    """Some rows of a tensor, [rows, ...], in a device's memory; NumPy can read them."""

    def __init__(self, value: onnxruntime.OrtValue, dtype: Any) -> None:
        self.value = value
        self.shape = tuple(value.shape())
        self.nbytes = math.prod(self.shape) * np.dtype(dtype).itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self.value.numpy()


class RowCopies:
    """Copies of rows from tensor to tensor within a device, by ONNX Runtime.

    `SIZES` are how many copies one run can make; more take several runs.
    """

    SIZES = (16, 4, 1)

    def __init__(self, dtype: Any, device: tuple[str, int]) -> None:
        """`device` is ONNX Runtime's name and number of it."""
        self._dtype = dtype
        self._device = device
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}

    def join(self, parts: Sequence[Rows], into: onnxruntime.OrtValue) -> None:
        """Write the rows one after the other into the first rows of `into`."""
        starts = self._starts(into, [len(part) for part in parts])
        self._copy(
            [(part.value.data_ptr(), to, part.shape) for part, to in zip(parts, starts)],
        )

    def split(self, value: onnxruntime.OrtValue, counts: Sequence[int]) -> list[Rows]:
        """Copies of the first rows of `value`, as many as `counts` says for each."""
        of_a_row = tuple(value.shape()[1:])
        new = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        shapes = [(count, *of_a_row) for count in counts]
        parts = [Rows(new(shape, self._dtype, *self._device), self._dtype) for shape in shapes]
        starts = self._starts(value, counts)
        self._copy(
            [(at, part.value.data_ptr(), part.shape) for at, part in zip(starts, parts)],
        )
        return parts

    def on_device(self, array: np.ndarray) -> Rows:
        """A copy of the array."""
        array = np.array(array, self._dtype)  # on the host an OrtValue is the array itself
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._device)
        return Rows(value, self._dtype)

    def _starts(self, value: onnxruntime.OrtValue, counts: Sequence[int]) -> list[int]:
        """The addresses of the rows that follow each other in `value`."""
        row = math.prod(value.shape()[1:]) * np.dtype(self._dtype).itemsize
        return [value.data_ptr() + row * sum(counts[:at]) for at in range(len(counts))]

    def _copy(self, copies: Sequence[tuple[int, int, tuple[int, ...]]]) -> None:
        """From an address to another, of that shape each."""
        while copies:
            size = next(size for size in self.SIZES if size <= len(copies))
            session = self._session(size)
            binding = session.io_binding()
            for number, (start, to, shape) in enumerate(copies[:size]):
                how = (*self._device, self._dtype, shape)
                binding.bind_input(f"from.{number}", *how, start)
                binding.bind_output(f"to.{number}", *how, to)
            session.run_with_iobinding(binding)
            copies = copies[size:]

    def _session(self, size: int) -> onnxruntime.InferenceSession:
        if size not in self._sessions:
            fields = []
            for number in range(size):
                ends = f"from.{number}", f"to.{number}"
                shape = [f"{axis}.{number}" for axis in ("rows", "channels", "height", "width")]
                fields.append(onnx_nodes.node("Identity", ends[:1], ends[1]))
                fields.append(onnx_nodes.graph_input(ends[0], shape, self._dtype))
                fields.append(onnx_nodes.graph_output(ends[1], shape, self._dtype))
            self._sessions[size] = onnx_nodes.session(fields, self._device)
        return self._sessions[size]
