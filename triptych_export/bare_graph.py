"""A graph whose large weights are left out while ONNX Runtime's optimizer changes it.

The optimizer copies a graph with all its weights at every step: with those of SDXL's UNet that took
more than 80 GB. It needs their names and shapes alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_np_to_float16

LARGE = 65536
"""Numbers of a weight from which on it is left out."""


class BareGraph:
    """The graph of a file, with nothing in its large weights until `fill`."""

    def __init__(self, path: Path) -> None:
        self._model = onnx.load(str(path), load_external_data=False)
        self._left_out: dict[str, np.ndarray] = {}
        for weight in self._model.graph.initializer:
            values = numpy_helper.to_array(weight, str(path.parent))
            if values.dtype == np.float32 and values.size >= LARGE:
                self._left_out[weight.name] = convert_np_to_float16(values)
                weight.CopyFrom(_empty(weight))
            else:
                weight.CopyFrom(numpy_helper.from_array(values, weight.name))

    def graph(self) -> ModelProto:
        """The graph, to be changed."""
        model = ModelProto()
        model.CopyFrom(self._model)
        return model

    def in_half(self, model: ModelProto) -> None:
        """Have what is left out be in half precision in `model`, which one of `graph` became."""
        for weight in model.graph.initializer:
            if weight.name in self._left_out:
                weight.data_type = TensorProto.FLOAT16

    def fill(self, model: ModelProto) -> None:
        """Put what is left out into `model`, after `in_half`."""
        for weight in model.graph.initializer:
            if weight.name in self._left_out:
                values = self._left_out.pop(weight.name)
                weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def _empty(weight: TensorProto) -> TensorProto:
    """Of its name, shape and type; onnx raises an error for whoever reads it."""
    empty = TensorProto(name=weight.name, dims=weight.dims, data_type=weight.data_type)
    empty.data_location = TensorProto.EXTERNAL
    empty.external_data.add(key="location", value="left out")
    return empty
