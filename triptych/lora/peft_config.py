"""The scales of layers that PEFT's configuration says, where diffusers wrote it into a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from triptych.lora import names

_KEY = "lora_adapter_metadata"


def scales(metadata: Mapping[str, str]) -> dict[str, Callable[[str, int], float]]:
    """For each network that a file's metadata has a LoraConfig of, the scale of a layer.

    The function takes the layer's name, as `names.flat` gives it, and its rank. Raises ValueError
    for a configuration that makes no sense or asks for DoRA.
    """
    if _KEY not in metadata:
        return {}
    config = json.loads(metadata[_KEY])
    if not isinstance(config, dict):
        raise ValueError(f"{_KEY} is no JSON object")
    found = {}
    for network in names.NETWORKS:
        prefix = f"{network}."
        own = {key[len(prefix) :]: config[key] for key in config if key.startswith(prefix)}
        if own.get("use_dora"):
            raise ValueError("it is of another kind, DoRA (use_dora)")
        if "lora_alpha" in own:
            found[network] = _scale(network, own)
    return found


def _scale(network: str, config: Mapping[str, Any]) -> Callable[[str, int], float]:
    patterns = config.get("alpha_pattern") or {}
    alphas = {names.flat(network, str(key)): float(patterns[key]) for key in patterns}
    alpha = float(config["lora_alpha"])

    def scale(layer: str, rank: int) -> float:
        own = [one for key, one in alphas.items() if f"_{layer}".endswith(f"_{key}")]
        return (own[0] if own else alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)

    return scale
