"""The most that a request may ask for, by default and as a server's operator changes it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AT_A_TIME = 31
"""Images in work by default: max_queue and max_streams of a server, --max-pictures of a gateway.

The config.pbtxt of sd_ensemble_stream says why it is not more.
"""


@dataclass(frozen=True)
class Limits:
    """The most that a request may ask for; the one place where these numbers stand.

    A server's operator changes them by `parameters` of the same names in the tokenizer's
    config.pbtxt. Sides and pixels are the picture's; `max_prompt_bytes` and `max_prompt_chunks`, of
    75 tokens each, hold for each of the two prompts, `max_picture_bytes` and `max_picture_pixels`
    for each file that a request brings.
    """

    max_num_inference_steps: int = 200
    max_guidance_scale: float = 50.0
    max_pixels: int = 768 * 768
    min_side: int = 64
    max_prompt_bytes: int = 16 * 1024
    max_height: int = 2**16
    max_width: int = 2**16
    max_picture_bytes: int = 10 * 1024 * 1024
    max_picture_pixels: int = 4096 * 4096
    max_prompt_chunks: int = 5

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Limits:
        """Limits with those in `parameters` changed; names in capitals are Triton's own.

        Raises ValueError, naming the parameter, for an unknown name and for a value that is no
        number or is outside 1 to `WIDEST`.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        changed: dict[str, Any] = {}
        for name, text in parameters.items():
            if name.isupper():
                continue
            if name not in known:
                raise ValueError(f"parameter {name}: no such limit; known: {', '.join(known)}")
            kind, highest = type(known[name]), getattr(WIDEST, name)
            try:
                value = kind(text)
            except ValueError:
                value = math.nan
            if not 1 <= value <= highest:
                raise ValueError(f"parameter {name}: got {text!r}; allowed: 1 to {highest}")
            changed[name] = value
        return cls(**changed)

    def widened(self, own: Any) -> Limits:
        """These limits, wide enough for a model's own size, steps and guidance.

        `own` has them as diffusers names them: ModelFiles, or the Settings of a prompt alone.
        """
        return dataclasses.replace(
            self,
            max_num_inference_steps=max(self.max_num_inference_steps, own.num_inference_steps),
            max_guidance_scale=max(self.max_guidance_scale, own.guidance_scale),
            max_pixels=max(self.max_pixels, own.height * own.width),
            min_side=min(self.min_side, own.height, own.width),
        )

    def within_latents(self, shape: str, scale: int) -> Limits:
        """These limits with no side larger than latents of that shape, `scale` pixels each.

        `shape` is the text in a config.pbtxt's `max_shape`, batch first; of another, as of an empty
        one, nothing follows.
        """
        sizes = shape.split()
        if len(sizes) != 4 or not all(size.isdecimal() for size in sizes):
            return self
        height, width = (scale * int(size) for size in sizes[2:])
        return dataclasses.replace(
            self,
            max_height=min(self.max_height, height),
            max_width=min(self.max_width, width),
        )


WIDEST = Limits(
    max_num_inference_steps=1000,
    max_guidance_scale=1000.0,
    max_pixels=4096 * 4096,
    min_side=4096,
    max_prompt_bytes=1024 * 1024,
    max_prompt_chunks=256,
    max_height=2**16,
    max_width=2**16,
    max_picture_bytes=64 * 1024 * 1024,
    max_picture_pixels=8192 * 8192,
)
"""What no operator can go beyond."""

MAX_MASK_BLUR = 256.0
"""The largest `mask_blur`, in pixels."""

MAX_CLIP_SKIP = 31
"""The most of any text encoder; the tokenizer stage knows the model's own."""

MAX_CACHE_INTERVAL = 20
"""The largest `cache_interval`, in steps."""

MAX_SIZE = 2**16
"""The largest height, width, top or left that a model is told, in pixels."""

MAX_PADDING = 4096
"""The largest `padding_mask_crop`, in pixels."""
