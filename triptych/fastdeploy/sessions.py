"""ONNX Runtime's sessions: started, and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from triptych.fastdeploy import openvino, providers
from triptych.fastdeploy.accelerators import Accelerators
from triptych.fastdeploy.bound import NO_GRAPH, Bound, run_options


def start(
    model: str | bytes,
    chosen: list[tuple[str, dict[str, Any]]],
    accelerators: Accelerators,
    folder: str = "",
) -> onnxruntime.InferenceSession:
    """A session of a model, a file or its bytes, with ONNX Runtime's `providers`.

    `folder` is where the bytes' weights are that are in a file of their own.
    """
    options = onnxruntime.SessionOptions()
    first, settings = chosen[0]
    on_cpu = first == providers.CPU
    options.intra_op_num_threads = accelerators.cpu_threads if on_cpu else 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if folder:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, folder)
    if first == openvino.PROVIDER:
        openvino.add_to(options, settings)
        return onnxruntime.InferenceSession(model, options)
    return onnxruntime.InferenceSession(model, options, providers=chosen)


def compute(
    session: onnxruntime.InferenceSession,
    bound: Bound | None,
    types: Mapping[str, Any],
    outputs: Sequence[str],
    parts: Mapping[str, Sequence[np.ndarray]],
    rows: int,
    weights: Mapping[str, Any] | None = None,
) -> list[np.ndarray]:
    """The outputs for each input's parts, stacked, of `rows` rows; on `bound` where it can.

    `types` are the inputs' NumPy types; `weights` are inputs too, arrays or OrtValues, which
    `bound` has already.
    """
    options = []
    if bound is not None:
        found = bound.run(parts, rows)
        if found is not None:
            return found
        options = [run_options(NO_GRAPH)]
    feeds = {}
    for name, dtype in types.items():
        arrays = parts[name]
        whole = np.asarray(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)
        feeds[name] = whole.astype(dtype, copy=False)
    if not any(isinstance(one, onnxruntime.OrtValue) for one in (weights or {}).values()):
        return session.run(outputs, {**feeds, **(weights or {})}, *options)
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        for name, array in feeds.items()
    }
    results = session.run_with_ort_values(outputs, {**values, **weights}, *options)
    return [one.numpy() for one in results]
