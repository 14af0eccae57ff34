"""Options for a network under ONNX Runtime, most of them for CUDA.

A config.pbtxt's `parameters { key: "graph_batches" value { string_value: "1 2 4 8" } }` says for
which batches CUDA graphs are recorded. Others are padded up to the next of them. Without it there
are no graphs. `lora_bytes` is what the changed weights of all kept sets of LoRAs may take together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triptych.fastdeploy.accelerators import ConfigError


def graph_batches(model_config: Mapping[str, Any]) -> tuple[int, ...]:
    """The config.pbtxt's `graph_batches` in rising order; ConfigError if they are no numbers."""
    entries = model_config.get("parameters") or {}
    words = entries.get("graph_batches", {"string_value": ""})["string_value"].split()
    if not all(word.isdecimal() and int(word) for word in words):
        raise ConfigError(f"graph_batches: got {words}; allowed: whole numbers from 1")
    return tuple(sorted(map(int, words)))


def max_rows(model_config: Mapping[str, Any]) -> int | None:
    """The config.pbtxt's `max_rows`, None for any number; ConfigError if it is no number."""
    entries = model_config.get("parameters") or {}
    if "max_rows" not in entries:
        return None
    text = entries["max_rows"]["string_value"]
    if not (text.isdecimal() and int(text)):
        raise ConfigError(f"max_rows: got {text!r}; allowed: a whole number from 1")
    return int(text)


LORA_BYTES = 2**31


def lora_bytes(model_config: Mapping[str, Any]) -> int:
    """The config.pbtxt's `lora_bytes`; ConfigError if it is no number."""
    entries = model_config.get("parameters") or {}
    text = entries.get("lora_bytes", {"string_value": str(LORA_BYTES)})["string_value"]
    if not text.isdecimal():
        raise ConfigError(f"lora_bytes: got {text!r}; allowed: a whole number of bytes")
    return int(text)


def cuda_options(graphs: bool) -> dict[str, str]:
    """Options of ONNX Runtime's CUDA provider, with graphs or without.

    cuDNN's heuristics choose the convolutions: to try all of them, ONNX Runtime's default, takes
    twice as long to load and found nothing faster.
    """
    options = {"cudnn_conv_algo_search": "HEURISTIC"}
    return {**options, "enable_cuda_graph": "1"} if graphs else options


def no_graphs(version: str) -> str:
    """Why that version of ONNX Runtime cannot record several graphs; empty if it can."""
    major, minor = map(int, version.split(".")[:2])
    return "" if (major, minor) >= (1, 18) else f"ONNX Runtime {version} has one a session"
