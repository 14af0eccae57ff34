"""What a config.pbtxt's `parameters` say of running a network under ONNX Runtime on CUDA.

parameters { key: "graph_batches" value { string_value: "1 2 4 8" } }
parameters { key: "cudnn_conv_algo_search" value { string_value: "HEURISTIC" } }
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triptych.fastdeploy.accelerators import ConfigError

SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")


@dataclass(frozen=True)
class Tuning:
    """`graph_batches`: the batches that CUDA graphs are recorded for, others are padded to them;

    none: no graphs. `conv_search`: how cuDNN's algorithm for a convolution is found, once a shape.
    """

    graph_batches: tuple[int, ...] = ()
    conv_search: str = SEARCHES[0]

    def options(self, graphs: bool) -> dict[str, str]:
        """Options of ONNX Runtime's CUDA provider, with graphs or without."""
        options = {"cudnn_conv_algo_search": self.conv_search}
        return {**options, "enable_cuda_graph": "1"} if graphs else options


def parse(model_config: Mapping[str, Any]) -> Tuning:
    """ConfigError, saying what is allowed, for a value that is not known."""
    entries = model_config.get("parameters") or {}
    texts = {name: entry["string_value"] for name, entry in entries.items()}
    words = texts.get("graph_batches", "").split()
    if not all(word.isdecimal() and int(word) for word in words):
        raise ConfigError(f"graph_batches: got {words}; allowed: whole numbers from 1")
    search = texts.get("cudnn_conv_algo_search", SEARCHES[0])
    if search not in SEARCHES:
        raise ConfigError(f"cudnn_conv_algo_search: got {search}; allowed: {', '.join(SEARCHES)}")
    return Tuning(tuple(sorted(map(int, words))), search)
