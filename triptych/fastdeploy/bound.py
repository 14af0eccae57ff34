"""Runs of a network on buffers with fixed addresses on the device, which CUDA graphs need."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from triptych.fastdeploy.device_rows import RowCopies, Rows

NO_GRAPH = "-1"
"""ONNX Runtime's `gpu_graph_id` for a run that is neither recorded nor played back."""


class Bound:
    """Runs of one session, each batch padded up to the next of `batches`, which rise.

    There is a slot for each padded batch and each shape of a row: input and output buffers on the
    device and, if the session has `enable_cuda_graph`, a recorded graph. Slots are never freed,
    since ONNX Runtime keeps their graphs; there are at most `MOST`.
    """

    MOST = 64

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        types: Mapping[str, Any],
        outputs: Sequence[str],
        batches: Sequence[int],
        device: tuple[str, int],
        weights: Mapping[str, Any] | None = None,
        stays: str = "",
        copies: RowCopies | None = None,
    ) -> None:
        """`types`: NumPy type of each input; `device`: its ONNX Runtime name and its number;
        `weights`: OrtValues on the device for more inputs, which runs take as they are then;
        `stays`: an output that is given as it is on the device, an OrtValue that the next run
        overwrites; `copies` writes inputs that are given as Rows.
        """
        self._session = session
        self._weights = weights or {}
        self._types = types
        self._outputs = outputs
        self._batches = batches
        self._device = device
        self._slots: dict[tuple, _Slot] = {}
        self._stays, self._copies = stays, copies

    def run(self, parts: Mapping[str, Sequence[np.ndarray]], rows: int) -> list[np.ndarray] | None:
        """The outputs for `parts`: for each input arrays that are stacked, `rows` rows in all.

        None if the batch is larger than all of `batches`, or all slots are taken. An array that
        owns its memory and is read-only is taken to be constant: when it is given to the same slot
        again, it is not copied to the device again.
        """
        if rows > self._batches[-1]:
            return None
        batch = self._batches[bisect_left(self._batches, rows)]
        key = (batch, *[parts[name][0].shape[1:] for name in self._types])
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) == self.MOST:
                return None
            slot = self._slots[key] = self._new(key)
        try:
            return slot.run(parts, rows)
        except Exception:
            slot.clear()  # or the rows that failed would be the padding of others
            raise

    def _new(self, key: tuple) -> _Slot:
        batch, *shapes = key
        inputs = {
            name: np.zeros((batch, *shape), dtype)
            for (name, dtype), shape in zip(self._types.items(), shapes)
        }
        number = str(1 + len(self._slots))
        return _Slot(
            self._session,
            inputs,
            self._outputs,
            number,
            self._device,
            self._weights,
            self._stays,
            self._copies,
        )


class _Slot:
    """The buffers and the graph for one padded batch and one shape of a row."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        number: str,
        device: tuple[str, int],
        weights: Mapping[str, Any],
        stays: str,
        copies: RowCopies | None,
    ) -> None:
        self._session = session
        self._copies = copies
        self._stay = [name == stays for name in outputs]
        self._host = inputs
        self._written: dict[str, np.ndarray] = {}
        self._on_host = device[0] == "cpu"
        self._device = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array, *device)
            for name, array in inputs.items()
        }
        self._binding = session.io_binding()
        for name, value in (*self._device.items(), *weights.items()):
            self._binding.bind_ortvalue_input(name, value)
        # The sizes of the outputs are known only after a run.
        for name in outputs:
            self._binding.bind_output(name, *device)
        session.run_with_iobinding(self._binding, run_options(NO_GRAPH))
        self._results = [
            onnxruntime.OrtValue.ortvalue_from_numpy(value.numpy(), *device)
            for value in self._binding.get_outputs()
        ]
        self._binding.clear_binding_outputs()
        for name, value in zip(outputs, self._results):
            self._binding.bind_ortvalue_output(name, value)
        self._options = run_options(number)

    def run(self, parts: Mapping[str, Sequence[np.ndarray]], rows: int) -> list[np.ndarray]:
        for name, arrays in parts.items():
            self._write(name, arrays)
        self._session.run_with_iobinding(self._binding, self._options)
        return [
            value if stays else self._read(value, rows)
            for value, stays in zip(self._results, self._stay)
        ]

    def _read(self, value: onnxruntime.OrtValue, rows: int) -> np.ndarray:
        result = value.numpy()[:rows]
        # On the host it is the buffer itself, which the next run fills again.
        return result.copy() if self._on_host else result

    def clear(self) -> None:
        """Fill the input buffers with zeros."""
        for name, array in self._host.items():
            array.fill(0)
            self._written.pop(name, None)

    def _write(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        first = arrays[0]
        if isinstance(first, Rows):
            self._copies.join(arrays, self._device[name])
            return
        alone = len(arrays) == 1
        if alone and self._written.get(name) is first:
            return
        host = self._host[name]
        if alone and _same_kind(first, host):
            host = first
        else:
            row = 0
            for array in arrays:
                host[row : row + len(array)] = array
                row += len(array)
        self._device[name].update_inplace(host)
        if alone and first.flags.owndata and not first.flags.writeable:
            self._written[name] = first
        else:
            self._written.pop(name, None)


def _same_kind(array: np.ndarray, other: np.ndarray) -> bool:
    same = array.shape == other.shape and array.dtype == other.dtype
    return same and array.flags.c_contiguous


def run_options(graph: str) -> onnxruntime.RunOptions:
    """Options of a run that records or replays the graph of that number."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph)
    return options
