"""What the models are called that LoRAs are made for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_BY_WIDTH = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}
"""By the width of the text that the UNet attends to."""
_BY_TEXT_ENCODER = {**_BY_WIDTH, 768: "Stable Diffusion 1.x or SDXL", 1280: "SDXL"}
"""By the width of a text encoder."""

TEXT = ("attn2_to_k", "attn2_to_v")
"""Ends the names of the UNet's layers that read the text."""

_TOLD = ("modelspec.architecture", "ss_base_model_version")
"""Metadata in which trainers name the model."""

_OTHERS = (
    (r"double_blocks|single_blocks|single_transformer_blocks", "FLUX"),
    (r"joint_blocks|^transformer\.transformer_blocks", "SD3"),
)
"""Patterns of names of tensors that models have that are not served here."""


def by_width(width: int) -> str:
    """The name of a model whose UNet attends to text of that width."""
    return _BY_WIDTH.get(width, f"a model whose text has {width} channels")


def by_text_encoder(width: int) -> str:
    """The name of a model that has a text encoder of that width."""
    return _BY_TEXT_ENCODER.get(width, by_width(width))


def of_network(network: str) -> str:
    """The name of a model that has that network, where others have none."""
    return "SDXL" if network == "text_encoder_2" else "another model"


def of_lora(
    found: Mapping[tuple[str, str], Mapping[str, Any]],
    others: Iterable[str],
    metadata: Mapping[str, str],
) -> str:
    """The model that a file is for, by its tensors or else by what it says of itself.

    `found` are the arrays by network and layer, `others` the names of all other tensors.
    """
    for pattern, name in _OTHERS:
        if any(re.search(pattern, other) for other in others):
            return name
    for (network, layer), parts in sorted(found.items(), reverse=True):
        if network == "text_encoder_2":
            return of_network(network)
        name, ends = by_width, TEXT
        if network == "text_encoder":
            name, ends = by_text_encoder, ("self_attn_q_proj", "self_attn_k_proj", "mlp_fc1")
        if layer.endswith(ends) and "down" in parts and parts["down"].ndim > 1:
            return name(parts["down"].shape[1])
    told = [metadata[key] for key in _TOLD if metadata.get(key)]
    return told[0][:60] if told else "another model"
