"""What conditions the UNet: the named tensors that it takes beside `sample` and `timestep`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Tuple

import numpy as np

from triptych.errors import InvalidRequest

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


def of_prompts(
    prompt_embeds: np.ndarray, negative_prompt_embeds: np.ndarray
) -> tuple[Conditioning, Conditioning]:
    """The conditioning on a prompt and on its negative prompt, from their embeddings.

    Both are [tokens, channels]. Raises InvalidRequest, under the arguments' names, for another
    shape, for two shapes, and for NaN or infinity.
    """
    embeds = {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds}
    for name, tensor in embeds.items():
        if tensor.ndim != 2 or tensor.shape != prompt_embeds.shape or 0 in tensor.shape:
            allowed = "[tokens, channels], of one shape for both prompts"
            raise InvalidRequest(name, tensor.shape, allowed)
        finite = np.isfinite(tensor)
        if not finite.all():
            raise InvalidRequest(name, float(tensor[~finite][0]), "finite numbers")
    prompt, negative = (Conditioning(encoder_hidden_states=one) for one in embeds.values())
    return prompt, negative
