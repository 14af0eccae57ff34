"""One call of the UNet: which images can share it, and its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from triptych.denoise.conditioning import Conditioning, Shapes
from triptych.lora.folder import Adapters


class CallKey(NamedTuple):
    """What images must have in common to share a call of the UNet.

    `latents` is the shape of their latents, `conditioning` the names and shapes of what conditions
    their rows, `adapters` the LoRAs that are added to the UNet's weights for them, `deep_cache`
    whether their deep features are kept.
    """

    latents: tuple[int, ...]
    conditioning: Shapes
    adapters: Adapters = ()
    deep_cache: bool = False


class CallArguments(NamedTuple):
    """What the UNet is called with; all float32, a row for each of the images' rows.

    `sample` is [N, channels, h, w], `timestep` [N]; `conditioning` has N rows for each name, each
    the same object in all calls of its image.
    """

    sample: np.ndarray
    timestep: np.ndarray
    conditioning: Mapping[str, Sequence[np.ndarray]]


class CallBuffers:
    """The arguments of calls with one key, in memory that is used again in every call."""

    def __init__(self, max_rows: int, key: CallKey) -> None:
        self._sample = np.empty((max_rows, *key.latents), np.float32)
        self._timestep = np.empty(max_rows, np.float32)

    def fill(
        self,
        inputs: Sequence[np.ndarray],
        timesteps: Sequence[np.float32],
        conditioning: Sequence[Sequence[Conditioning]],
    ) -> CallArguments:
        """The arguments for some images; for each its model input, timestep and rows.

        They are valid until the next `fill`.
        """
        row = 0
        for model_input, timestep, rows in zip(inputs, timesteps, conditioning):
            end = row + len(rows)
            self._sample[row:end] = model_input
            self._timestep[row:end] = timestep
            row = end
        all_rows = [one for rows in conditioning for one in rows]
        return CallArguments(
            self._sample[:row],
            self._timestep[:row],
            {name: [one[name] for one in all_rows] for name in all_rows[0]},
        )
