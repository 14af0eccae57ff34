"""DeepCache: images for which the UNet's deep part runs in every n-th call only.

Ma, Fang and Wang 2024, "DeepCache: Accelerating diffusion models for free". In the calls between,
the last layer alone runs, on what the deep part gave before: the image's deep features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Deep(NamedTuple):
    """An image's part in a call: the `name` and `rows` of its deep features.

    `since` is the image's call in which they are computed: this one where they are `due`, else an
    earlier one. Whoever runs the UNet keeps them, and raises Unavailable, whose text has the name,
    for those that it does not have: others would draw another picture.
    """

    name: str
    rows: int
    since: int
    due: bool


class DeepCache(NamedTuple):
    """The images of a call, in the order of their rows, and names that no later call will say."""

    images: tuple[Deep, ...]
    gone: tuple[str, ...] = ()


def is_due(interval: int, timesteps: np.ndarray, begin: int, i: int) -> bool:
    """Whether the deep part runs in call `i` of a scheduler's table, of which `begin` is the first.

    As in the authors' package, calls at one timestep count as the first of them.
    """
    first, place = (int(np.argmax(timesteps == timesteps[call])) for call in (begin, i))
    return (place - first) % interval == 0
