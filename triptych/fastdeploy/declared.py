"""What a network's config.pbtxt declares, held against its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from triptych.fastdeploy.accelerators import PROFILES, Accelerators, ConfigError

ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_TRITON_TYPES = {
    "TYPE_FP32": np.float32,
    "TYPE_FP16": np.float16,
    "TYPE_FP64": np.float64,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
}


def declared(
    model_config: Mapping[str, Any], kind: str, tensors: Mapping[str, Any], complete: bool
) -> dict[str, Any]:
    """NumPy types of the tensors that config.pbtxt declares; they must be among the graph's.

    `complete`: it must declare all of them.
    """
    declared = {entry["name"]: entry["data_type"] for entry in model_config[kind]}
    unknown = [name for name in declared if name not in tensors]
    missing = [name for name in tensors if name not in declared] if complete else []
    if unknown or missing:
        raise ConfigError(
            f"config.pbtxt has {kind}s {', '.join(declared)}, model.onnx {', '.join(tensors)}"
        )
    for name, tensor in tensors.items():
        if tensor.type not in ONNX_TYPES:
            raise ConfigError(f"model.onnx: {name} is {tensor.type}; allowed: {list(ONNX_TYPES)}")
    for name, data_type in declared.items():
        if data_type not in _TRITON_TYPES:
            allowed = ", ".join(_TRITON_TYPES)
            raise ConfigError(f"config.pbtxt: {name} is {data_type}; allowed: {allowed}")
    return {name: _TRITON_TYPES[data_type] for name, data_type in declared.items()}


def check_profiles(accelerators: Accelerators, inputs: Mapping[str, Sequence[Any]]) -> None:
    """ConfigError unless TensorRT's shapes are those of the graph's `inputs`, shapes too."""
    for profile in PROFILES:
        for name, shape in accelerators.shapes.get(profile, {}).items():
            if name not in inputs:
                raise ConfigError(f"{profile}: no input {name}; allowed: {', '.join(inputs)}")
            graph = inputs[name]
            if len(graph) != len(shape) or any(
                isinstance(size, int) and size != got for size, got in zip(graph, shape)
            ):
                text = " ".join(map(str, shape))
                allowed = [size if isinstance(size, int) else -1 for size in graph]
                raise ConfigError(f"{profile}: {name}: got '{text}'; model.onnx has {allowed}")
