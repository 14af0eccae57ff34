"""Weights that are inputs of a graph, and change from one set of LoRAs to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from triptych.fastdeploy.lru import Lru
from triptych.fastdeploy.onnx_graph import copying_model


class HostWeights:
    """Weights in the host's memory: a set's are given to the run in place of the originals."""

    def __init__(self, originals: Mapping[str, np.ndarray]) -> None:
        self.values: Mapping[str, Any] = originals

    def hold(self, changed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What `switch` takes for these weights of a set."""
        return changed

    def switch(self, held: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """All weights, with a set's."""
        return {**self.values, **held}


class _Held(NamedTuple):
    names: frozenset
    session: onnxruntime.InferenceSession
    binding: Any


class DeviceWeights:
    """Weights at fixed addresses of a device, as CUDA graphs need: a set's are copied there.

    The copies are runs of a graph that only copies: ONNX Runtime's Python API has no other way from
    one place of a device to another that every release and every device has.
    """

    def __init__(self, originals: Mapping[str, np.ndarray], device: tuple[str, int]) -> None:
        """`device` is ONNX Runtime's name and number of it."""
        self._originals = originals
        self._device = device
        self.values: Mapping[str, Any] = {
            # On the host an OrtValue is the array itself.
            name: self._on_device(array.copy())
            for name, array in originals.items()
        }
        self._changed: frozenset = frozenset()
        self._now: _Held | None = None
        self._sessions = Lru(8)

    def hold(self, changed: Mapping[str, np.ndarray]) -> _Held:
        """What `switch` takes for these weights of a set, which are on the device then."""
        names = frozenset(changed)
        session = self._sessions.get(names, lambda: (self._copying(names), 1))
        binding = session.io_binding()
        for name in names:
            binding.bind_ortvalue_input(f"{name}.from", self._on_device(changed[name]))
            binding.bind_ortvalue_output(f"{name}.to", self.values[name])
        return _Held(names, session, binding)

    def switch(self, held: _Held) -> Mapping[str, Any]:
        """All weights, with a set's."""
        if self._now is not held:
            back = self._changed - held.names
            self._now, self._changed = None, self._changed | held.names
            for name in back:
                self.values[name].update_inplace(self._originals[name])
            held.session.run_with_iobinding(held.binding)
            self._now, self._changed = held, held.names
        return self.values

    def _on_device(self, array: np.ndarray) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._device)

    def _copying(self, names: frozenset) -> onnxruntime.InferenceSession:
        model = copying_model({name: self._originals[name] for name in names})
        name, number = self._device
        on_cuda = ("CUDAExecutionProvider", {"device_id": number})
        chosen = ["CPUExecutionProvider"] if name == "cpu" else [on_cuda]
        return onnxruntime.InferenceSession(model, providers=chosen)
