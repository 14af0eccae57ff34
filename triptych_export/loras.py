"""LoRAs added to a model's weights for good: --lora FILE:SCALE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from triptych.errors import InvalidRequest
from triptych.lora import files, merging, models
from triptych.lora.merging import Place
from triptych_export.errors import ExportError


def add(networks: dict[str, torch.nn.Module], loras: Sequence[tuple[Path, float]]) -> None:
    """Add LoRAs, each times its scale, to the weights of `unet` and the text encoders.

    They are read and added as the server does it. ExportError for a file that is no LoRA, or one
    for another model.
    """
    served = models.by_width(networks["unet"].config.cross_attention_dim)
    for path, _ in loras:
        if not path.is_file():
            raise ExportError(f"--lora {path}: no such file")
    try:
        read = [(files.read(path, path.name), path.name, scale) for path, scale in loras]
        for file, name, _ in read:
            for other in sorted(file.layers.keys() - networks.keys()):
                allowed = f"a LoRA for {served}, but it is for {file.model} ({other} is not here)"
                raise InvalidRequest("loras", name, allowed)
        for network, module in networks.items():
            weights = module.state_dict()
            places = _places(network, weights)
            changes = [
                (merging.layers_for(places, file, network, name, served), scale)
                for file, name, scale in read
            ]
            changed = merging.merged(places, changes, _values_of(weights))
            for name, values in changed.items():
                weights[name].copy_(torch.from_numpy(values))
    except InvalidRequest as error:
        raise ExportError(f"--lora {error.value}: wanted is {error.allowed}") from None


def _values_of(weights: dict[str, torch.Tensor]) -> Callable[[str], np.ndarray]:
    return lambda name: weights[name].numpy()


def _places(network: str, weights: dict[str, torch.Tensor]) -> dict[str, Place]:
    """The state dict's own weights, each whole and as it is."""
    whole = {
        name: Place(tuple(weight.shape), name, tuple(range(weight.ndim)))
        for name, weight in weights.items()
        if weight.ndim in (2, 4)
    }
    return merging.by_layer(network, whole)
