"""The served model's own numbers, from the files that the export writes beside a stage."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triptych import checks, schedulers
from triptych.errors import InvalidRequest, ModelFileError
from triptych.settings import Defaults, Limits, Settings, parse

FIX = "export the stages again with scripts/export_stages.py"


@dataclass(frozen=True)
class ModelFiles:
    """`pipeline.json` and `scheduler_config.json` of a stage's version folder.

    `height` and `width` are the picture's in pixels where the request names none. Its latents have
    `latent_channels` channels and one element every `vae_scale_factor` pixels; the VAE's decoder
    takes `latents / scaling_factor + shift_factor`. Steps and guidance default to diffusers' own.
    `latent_rgb` are the colours of previews, see `denoise.preview`; without it there are none.
    `time_cond_proj_dim` is the width of the embedding of `guidance_scale` that the UNet takes, as
    latent consistency models do, and None where it takes none. The text encoder knows `vocab_size`
    tokens and takes at most `max_position_embeddings` of them; None where the export did not say.
    `unet_in_channels` is diffusers' `in_channels`, None where it is `latent_channels`: a UNet that
    was made to paint in pictures takes the mask and the latents of what stays too.
    `text_encoder_layers` is None where the text encoder takes nothing but tokens: no weights, no
    `clip_skip`, one chunk. `pad_token_id_2` is what pads the prompts of the second text encoder,
    which SDXL has, and None for a model with one. `force_zeros_for_empty_prompt` is diffusers': 1
    where zeros stand for an empty negative prompt.
    """

    height: int
    width: int
    scheduler_config: dict[str, Any]
    latent_channels: int = 4
    vae_scale_factor: int = 8
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    latent_rgb: list[list[float]] | None = None
    time_cond_proj_dim: int | None = None
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    unet_in_channels: int | None = None
    text_encoder_layers: int | None = None
    pad_token_id_2: int | None = None
    force_zeros_for_empty_prompt: int | None = None

    @property
    def is_sdxl(self) -> bool:
        """Whether there are two text encoders, and the UNet is told sizes."""
        return self.pad_token_id_2 is not None

    @property
    def paints_in(self) -> bool:
        """Whether the UNet takes `mask` and `masked_image_latents` beside `sample`."""
        return self.unet_in_channels == 2 * self.latent_channels + 1

    @classmethod
    def load(cls, folder: str | Path) -> ModelFiles:
        """The numbers in `folder`, with which a request of a prompt alone can be served.

        ModelFileError, for anything else, names the file and what to do about it.
        """
        path = Path(folder) / "pipeline.json"
        values = _read(path)
        for field in dataclasses.fields(cls):
            if field.name in ("scheduler_config", "latent_rgb"):
                continue
            if field.name not in values:
                if field.default is dataclasses.MISSING:
                    raise ModelFileError(path, f"{field.name} is missing", FIX)
                continue
            _check_number(path, field.name, values[field.name])
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown or "scheduler_config" in values:
            names = ", ".join(sorted(unknown or {"scheduler_config"}))
            raise ModelFileError(path, f"unknown: {names}", FIX)
        scheduler_path = Path(folder) / "scheduler_config.json"
        model_files = cls(scheduler_config=_read(scheduler_path), **values)
        if model_files.latent_rgb is not None:
            _check_colours(path, model_files)
        if not model_files.paints_in and values.get("unet_in_channels") not in (
            None,
            model_files.latent_channels,
        ):
            problem = f"unet_in_channels {model_files.unet_in_channels} is not served"
            raise ModelFileError(path, problem, FIX)
        for name in ("height", "width"):
            if values[name] % model_files.vae_scale_factor:
                problem = f"{name} {values[name]} is no multiple of vae_scale_factor"
                raise ModelFileError(path, problem, FIX)
        try:
            defaults = model_files.defaults()
            schedulers.create(
                defaults.scheduler, model_files.scheduler_config, defaults.num_inference_steps
            )
        except (ValueError, KeyError) as error:
            fix = "take a scheduler that is served, or other values for it"
            raise ModelFileError(scheduler_path, str(error), fix) from error
        try:
            settings = parse(b"a prompt", defaults, Limits().widened(defaults))
            Settings.from_json(settings.to_json())  # as the stages after the tokenizer read it
        except InvalidRequest as error:
            raise ModelFileError(path, str(error), FIX) from error
        return model_files

    def defaults(self) -> Defaults:
        """What a request gets that names nothing but its prompt."""
        return Defaults(
            height=self.height,
            width=self.width,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            scheduler=schedulers.default_name(self.scheduler_config),
            size_multiple=self.vae_scale_factor,
            scheduler_config=self.scheduler_config,
        )

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latents of a picture of that many pixels."""
        for name, side in (("height", height), ("width", width)):
            if side % self.vae_scale_factor:
                raise InvalidRequest(name, side, checks.nearest(side, self.vae_scale_factor))
        return (
            self.latent_channels,
            height // self.vae_scale_factor,
            width // self.vae_scale_factor,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(path, "no such file", FIX) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(path, f"cannot be read ({error})", FIX) from error
    if not isinstance(values, dict):
        raise ModelFileError(path, "is no JSON object", FIX)
    return values


def _check_number(path: Path, name: str, value: Any) -> None:
    whole = name not in ("scaling_factor", "shift_factor", "guidance_scale")
    right_type = type(value) is int if whole else type(value) in (int, float)
    from_zero = name in ("shift_factor", "guidance_scale", "pad_token_id_2")
    if not right_type or not math.isfinite(value) or not (value > 0 or from_zero):
        kind = "a whole number over 0" if whole else "a number"
        raise ModelFileError(path, f"{name} is {value!r}, not {kind}", FIX)


def _check_colours(path: Path, model_files: ModelFiles) -> None:
    rows, wanted = model_files.latent_rgb, (model_files.latent_channels + 1, 3)
    try:
        numbers = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if numbers.shape != wanted or not np.isfinite(numbers).all():
        raise ModelFileError(path, f"latent_rgb is no table of {wanted[0]} rows of 3 numbers", FIX)
