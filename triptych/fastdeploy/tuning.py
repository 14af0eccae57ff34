"""How a network runs under ONNX Runtime on CUDA.

parameters { key: "graph_batches" value { string_value: "1 2 4 8" } } in a config.pbtxt: the
batches that CUDA graphs are recorded for, others are padded to them; none: no graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triptych.fastdeploy.accelerators import ConfigError


def graph_batches(model_config: Mapping[str, Any]) -> tuple[int, ...]:
    """In rising order; ConfigError, saying what is allowed, for what are no numbers."""
    entries = model_config.get("parameters") or {}
    words = entries.get("graph_batches", {"string_value": ""})["string_value"].split()
    if not all(word.isdecimal() and int(word) for word in words):
        raise ConfigError(f"graph_batches: got {words}; allowed: whole numbers from 1")
    return tuple(sorted(map(int, words)))


def cuda_options(graphs: bool) -> dict[str, str]:
    """Options of ONNX Runtime's CUDA provider, with graphs or without.

    cuDNN's heuristics choose the convolutions: to try all of them, ONNX Runtime's default, takes
    twice as long to load and found nothing faster.
    """
    options = {"cudnn_conv_algo_search": "HEURISTIC"}
    return {**options, "enable_cuda_graph": "1"} if graphs else options
