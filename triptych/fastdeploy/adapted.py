"""A network with LoRAs added to its weights, which change from run to run.

It runs in a second session of the same graph, in which the weights that change are inputs: other
weights take no new session, on a GPU no new CUDA graph, and cost a run without LoRAs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from triptych.errors import InvalidRequest
from triptych.fastdeploy.changing_weights import DeviceWeights, HostWeights
from triptych.fastdeploy.lru import Lru
from triptych.fastdeploy.nhwc_conv import is_product
from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.fastdeploy.places import places
from triptych.fastdeploy.tuning import LORA_BYTES
from triptych.lora import files, merging, names
from triptych.lora.folder import Adapter, LoraFolder
from triptych.lora.request import Lora

FILES_BYTES = 2**28
"""Of the files that were read last, and are kept for other scales and sets."""
LEAST_BYTES = 2**12
"""That a set counts for: one that leaves the network as it is has none."""
Parts = Mapping[str, Sequence[np.ndarray]]
Run = Callable[[Parts, int, Mapping[str, Any]], Any]


class Adapted:
    """Weights are added once for each set of adapters; the sets used last are kept."""

    def __init__(
        self,
        graph: OnnxGraph,
        folder: LoraFolder,
        start: Callable[[bytes, Mapping[str, Any]], Run],
        device: tuple[str, int] | None = None,
        most_bytes: int = LORA_BYTES,
    ) -> None:
        """`start` makes of a model, and of all weights that are its inputs, what runs it: a
        function of the inputs' parts, their rows together, and the weights of the run. These are
        arrays, or with a `device`, ONNX Runtime's name and number of one, OrtValues at addresses
        that stay. `most_bytes` is for the sets together. ValueError for a graph whose weights have
        no known places.
        """
        self._graph = graph
        self._folder = folder
        self._start = start
        self._device = device
        self._network, self._model, self._places = places(graph)
        self._tensors = {place.tensor for place in self._places.values()}
        self._files, self._sets = Lru(FILES_BYTES), Lru(most_bytes, LEAST_BYTES)
        self._weights: HostWeights | DeviceWeights = HostWeights({}, {})
        self._run: Run | None = None

    def run(self, adapters: tuple[Adapter, ...], parts: Parts, rows: int) -> Any:
        """The outputs for each input's parts, `rows` rows together.

        None where the adapters leave this network as it is. InvalidRequest for files that are no
        LoRAs, are for another model, or were replaced since.
        """
        tensors, held = self._sets.get(adapters, lambda: self._made(adapters))
        if not tensors:
            return None
        self._take(tensors)
        return self._run(parts, rows, self._weights.switch(held))

    def expected(self) -> bool:
        """Whether a file in the folder, as it is now, changes this network."""
        for name in self._folder.names():
            try:
                adapters = self._folder.find([Lora(name, 1.0)])
                told = self._folder.changed(adapters, names.NETWORKS)
                if self._network in told and any(map(self._layers, adapters)):
                    return True
            except InvalidRequest:
                continue
        return False

    def warm_up(self, parts: Parts, rows: int) -> None:
        """Run what the first set of a device will run, on the weights as they are."""
        self._take(self._products())
        self._run(parts, rows, self._weights.values)

    def _made(self, adapters: tuple[Adapter, ...]) -> tuple[Any, int]:
        """The names of the tensors that a set changes, and what holds them; and their bytes."""
        changes = [(self._layers(adapter), adapter.scale) for adapter in adapters]
        tensors = frozenset(self._places[layer].tensor for layers, _ in changes for layer in layers)
        if not tensors:
            return (tensors, None), 0
        self._take(tensors)
        held, nbytes = self._weights.hold(changes)
        return (tensors, held), nbytes

    def _products(self) -> set[str]:
        """The tensors that matrix products take. Others make convolutions slower as inputs."""
        weights = self._graph.weights
        return {name for name in self._tensors if is_product(weights[name].shape)}

    def _take(self, tensors: Iterable[str]) -> None:
        """Have a session whose inputs are these weights, and those of the one before."""
        known = self._weights.values.keys()
        if set(tensors) <= known:
            return
        if self._device is not None:  # where recorded graphs make it dear: in two steps
            products = self._products()
            tensors = products if set(tensors) <= products else self._tensors
        wanted = sorted({*known, *tensors})
        self._run, self._weights = None, HostWeights({}, {})  # frees their memory first
        if self._device is not None:
            self._sets.clear()  # they write into the weights that are gone
        originals = {name: self._graph.values(name) for name in wanted}
        weights: HostWeights | DeviceWeights = HostWeights(originals, self._places)
        if self._device is not None:
            weights = DeviceWeights(originals, self._places, self._device)
        self._run = self._start(self._graph.with_inputs(wanted), weights.values)
        self._weights = weights

    def _layers(self, adapter: Adapter) -> dict[str, files.Layer]:
        file = self._file(adapter)
        return merging.layers_for(self._places, file, self._network, adapter.name, self._model)

    def _file(self, adapter: Adapter) -> files.LoraFile:
        def is_there() -> bool:
            return self._folder.version(adapter.name) == adapter.version

        def make() -> tuple[files.LoraFile, int]:
            file = None
            if is_there():
                file = files.read(self._folder.path(adapter.name), adapter.name, self._model)
            if file is None or not is_there():
                allowed = "a file that stays as it is while it is used: this one was replaced"
                raise InvalidRequest("loras", adapter.name, allowed)
            return file, file.nbytes

        return self._files.get((adapter.name, adapter.version), make)
