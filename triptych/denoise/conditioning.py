"""What conditions the UNet: the named tensors that it takes beside `sample` and `timestep`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Tuple

import numpy as np

from triptych import sdxl
from triptych.errors import InvalidRequest
from triptych.model_files import ModelFiles
from triptych.settings import Settings

Shapes = Tuple[Tuple[str, Tuple[int, ...]], ...]
"""Names and shapes of conditioning tensors, in the order of the names."""


class Conditioning(Mapping):
    """The tensors of one row of a UNet call, by the names of the network's inputs.

    Each is float32 and contiguous, without the batch axis: `encoder_hidden_states`, [tokens,
    channels], for every model, and whatever else a model's UNet takes. Nothing in the loop knows
    the names: a model that takes one more is given one more here.
    """

    def __init__(self, **tensors: np.ndarray) -> None:
        self._tensors = {
            name: np.ascontiguousarray(tensor, dtype=np.float32)
            for name, tensor in sorted(tensors.items())
        }
        self.shapes: Shapes = tuple((name, one.shape) for name, one in self._tensors.items())

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


EMBEDS = ("prompt_embeds", "negative_prompt_embeds")
"""What the text encoder gives for both prompts, under the names that unet_loop has."""

SDXL_EMBEDS = (
    *("prompt_embeds_2", "negative_prompt_embeds_2"),
    *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
)
"""What SDXL's second text encoder gives beside them."""


def of_embeds(
    embeds: Mapping[str, np.ndarray], settings: Settings, model_files: ModelFiles
) -> tuple[Conditioning, Conditioning]:
    """The conditioning on both prompts of an image, from `EMBEDS`, and for SDXL `SDXL_EMBEDS`.

    Embeddings are [tokens, channels], pooled ones [channels]. SDXL's UNet attends to those of both
    text encoders side by side. Raises InvalidRequest, under their names, as `of_prompts` does.
    """
    if not model_files.is_sdxl:
        return of_prompts(*(embeds[name] for name in EMBEDS))
    wide = []
    for name in EMBEDS:
        first, second = embeds[name], embeds[f"{name}_2"]
        if second.ndim != 2 or first.shape[:-1] != second.shape[:-1]:
            allowed = f"[tokens, channels], as many tokens as in {name}"
            raise InvalidRequest(f"{name}_2", second.shape, allowed)
        wide.append(np.concatenate([first, second], axis=-1))
    time_ids = sdxl.time_ids(settings)
    pooled = {name: embeds[name] for name in SDXL_EMBEDS if "pooled" in name}
    _check_same(pooled, 1, "[channels]")
    prompt, negative = (
        Conditioning(**one, text_embeds=text_embeds, time_ids=time_ids)
        for one, text_embeds in zip(of_prompts(*wide), pooled.values())
    )
    return prompt, negative


def of_size(settings: Settings, *prompts: Conditioning) -> tuple[Conditioning, ...]:
    """The conditioning on `prompts` of an image of other settings: SDXL's UNet is told its size."""
    return tuple(
        Conditioning(**{**one, "time_ids": sdxl.time_ids(settings)}) if "time_ids" in one else one
        for one in prompts
    )


def of_prompts(
    prompt_embeds: np.ndarray, negative_prompt_embeds: np.ndarray
) -> tuple[Conditioning, Conditioning]:
    """The conditioning on a prompt and on its negative prompt, from their embeddings.

    Both are [tokens, channels]. Raises InvalidRequest, under the arguments' names, for another
    shape, for two shapes, and for NaN or infinity.
    """
    embeds = dict(zip(EMBEDS, (prompt_embeds, negative_prompt_embeds)))
    _check_same(embeds, 2, "[tokens, channels]")
    prompt, negative = (Conditioning(encoder_hidden_states=one) for one in embeds.values())
    return prompt, negative


def _check_same(tensors: Mapping[str, np.ndarray], axes: int, shown: str) -> None:
    """InvalidRequest unless they have so many axes, one shape, and finite numbers."""
    first = next(iter(tensors.values()))
    for name, tensor in tensors.items():
        if tensor.ndim != axes or tensor.shape != first.shape or 0 in tensor.shape:
            raise InvalidRequest(name, tensor.shape, f"{shown}, of one shape for both prompts")
        finite = np.isfinite(tensor)
        if not finite.all():
            raise InvalidRequest(name, float(tensor[~finite][0]), "finite numbers")
