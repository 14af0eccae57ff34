"""What models of SDXL's kind take beside what others take, and what they do not."""

from __future__ import annotations

import numpy as np

from triptych.errors import InvalidRequest
from triptych.model_files import ModelFiles
from triptych.settings import SDXL_KEYS, Settings


def refuse(settings: Settings, model_files: ModelFiles) -> None:
    """InvalidRequest, by its name, for a setting that the model's kind has no part for."""
    if model_files.is_sdxl:
        return
    for name in SDXL_KEYS:
        if getattr(settings, name) is not None:
            allowed = "none: this model has one text encoder and is told no sizes, unlike SDXL"
            raise InvalidRequest(name, settings.json_value(name), allowed)


def time_ids(settings: Settings) -> np.ndarray:
    """What the UNet is told of sizes: the picture's first one, where it was cut, and its last one.

    float32 [6], each of them height and width, or top and left (Podell et al. 2023, "SDXL",
    section 2.2; the defaults are those of diffusers' StableDiffusionXLPipeline).
    """
    size = (settings.height, settings.width)
    original, target = settings.original_size or size, settings.target_size or size
    return np.array([*original, *(settings.crops_coords_top_left or (0, 0)), *target], np.float32)


def zeros_for_negative(settings: Settings, model_files: ModelFiles) -> bool:
    """Whether zeros stand for the negative prompt, as nothing is said in it."""
    said = settings.negative_prompt or settings.negative_prompt_2
    return bool(model_files.force_zeros_for_empty_prompt) and not said
