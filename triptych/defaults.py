"""What a request gets that does not say otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Defaults:
    """The served model's own values.

    `size_multiple`: what height and width must be multiples of, the VAE's factor.
    `scheduler_config`: what tells which of a diffusers class's schedulers its name means. `model`:
    the model's name, None for the one that is meant by none.
    """

    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str
    size_multiple: int = 8
    scheduler_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: str | None = None
