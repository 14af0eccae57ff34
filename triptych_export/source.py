"""A folder of weights in the layout of diffusers: what it is, and the numbers to serve it with."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from triptych_export.errors import ExportError
from triptych_export.families import (
    PARTS,
    PIPELINE_DEFAULTS,
    SECOND,
    class_of,
    has_two_text_encoders,
    pipeline_of,
    refuse_other_classes,
    refuse_other_families,
    refuse_other_unets,
)
from triptych_export.known_configs import (
    ANY_TRANSFORMER,
    TEXT_ENCODER,
    UNET,
    VAE,
    refuse_unknown_keys,
)

TINY = "tiny_decoder"
"""The folder of what decodes in the VAE's place, beside the parts."""
CLIP_LENGTH = 77
"""Tokens of a prompt, padding included, where the configuration has no other number."""
CLIP_LAYERS = 12
"""Hidden layers of the text encoder where the configuration does not say: CLIP's, in transformers.
"""
CLIP_WIDTH = 512
"""Of embeddings and pooled ones, where the configuration does not say: CLIP's, in transformers."""
OLD_SCALING_FACTOR = 0.18215
"""The VAE's factor where the configuration is older than the key: Stable Diffusion 1.x's."""


@dataclass(frozen=True)
class SecondEncoder:
    """SDXL's second text encoder: the width of its embeddings, and of its pooled ones."""

    hidden_size: int
    projection_dim: int
    force_zeros_for_empty_prompt: bool


@dataclass(frozen=True)
class Source:
    """A model folder that was found fit for the export, and the numbers read from it.

    sample_size: height and width of the latents that the UNet was trained on. hidden_size: width
    of the text embeddings. text_length: tokens of a prompt, padding included. vae_scale_factor:
    pixels to one latent, along one side. paddle: the weights are in Paddle's layout. fixed_size:
    the networks take latents of sample_size and of no other. time_cond_proj_dim: width of the
    embedding of guidance_scale that the UNet takes in the place of classifier-free guidance, as
    latent consistency models do; None where it takes none. num_inference_steps and guidance_scale:
    defaults of the pipeline that the model was made for, None where they are the usual ones.
    pipeline: the class that reads the scheduler's file. scheduler_class: what model_index.json
    names, None where it names none. paints_in: the UNet was made to paint in pictures: it takes a
    mask and the latents of what stays beside its own. text_encoder_layers: how many hidden layers
    the text encoder has, of two the fewer; None where its graph takes tokens and nothing else.
    second_encoder: what SDXL has; then hidden_size is that of both text encoders together.
    tiny_decoder: an AutoencoderTiny in TINY decodes in the VAE's place.
    """

    folder: Path
    sample_size: tuple[int, int]
    latent_channels: int
    hidden_size: int
    text_length: int
    vocab_size: int
    vae_scale_factor: int
    scaling_factor: float
    shift_factor: float | None
    paddle: bool
    pipeline: str
    fixed_size: bool = False
    time_cond_proj_dim: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler_class: str | None = None
    paints_in: bool = False
    text_encoder_layers: int | None = None
    tiny_decoder: bool = False
    second_encoder: SecondEncoder | None = None


def open_source(folder: Path) -> Source:
    """Read the configurations of `folder`.

    ExportError if it is no Stable Diffusion 1.x, 2.x or XL for text to image, or says something
    that the export does not know.
    """
    index = read_json(folder / "model_index.json")
    refuse_other_families(index)
    refuse_other_classes(index)
    two = has_two_text_encoders(index)
    parts = (*PARTS, *SECOND) if two else PARTS
    for part in parts:
        if not (folder / part).is_dir():
            raise ExportError(f"{folder}: no {part}/; the diffusers layout has {', '.join(parts)}")
    encoders = {
        part: read_json(folder / part / "config.json") for part in parts if "encoder" in part
    }
    text_encoder, second = encoders["text_encoder"], encoders.get("text_encoder_2")
    unet = read_json(folder / "unet" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    read_json(folder / "scheduler" / "scheduler_config.json")
    for part, config in encoders.items():
        if config.get("model_type", "clip") not in ("clip", "clip_text_model"):
            raise ExportError(
                f"{folder / part}: a text encoder of the kind {config['model_type']}; the served "
                "stages have CLIP's"
            )
    refuse_other_unets(unet, _width(second, "projection_dim") if second else None)
    for part, config, known in (
        *((part, config, TEXT_ENCODER | ANY_TRANSFORMER) for part, config in encoders.items()),
        ("unet", unet, UNET),
        ("vae", vae, VAE),
    ):
        refuse_unknown_keys(folder / part / "config.json", config, known)
    width = unet.get("cross_attention_dim")
    made = sum(_width(config, "hidden_size") for config in encoders.values())
    if width != made:
        raise ExportError(
            f"{folder}: the UNet attends to embeddings {width} wide, the text encoder makes "
            f"{made}: these are not parts of one model"
        )
    if two and vae.get("latents_mean"):
        raise ExportError(f"{folder / 'vae'}: latents_mean is not served for models of SDXL's kind")
    lengths = {one.get("max_position_embeddings", CLIP_LENGTH) for one in encoders.values()}
    words = {one["vocab_size"] for one in encoders.values()}
    if len(lengths) > 1 or len(words) > 1:
        raise ExportError(f"{folder}: the two text encoders take prompts of other lengths or words")
    size = unet["sample_size"]
    paints_in = unet["in_channels"] != unet["out_channels"]
    return Source(
        folder=folder,
        sample_size=(size, size) if isinstance(size, int) else tuple(size),
        latent_channels=unet["out_channels"],
        paints_in=paints_in,
        hidden_size=width,
        text_length=lengths.pop(),
        vocab_size=text_encoder["vocab_size"],
        vae_scale_factor=2 ** (len(vae["block_out_channels"]) - 1),
        scaling_factor=vae.get("scaling_factor", OLD_SCALING_FACTOR),
        shift_factor=vae.get("shift_factor"),
        paddle="_ppdiffusers_version" in index or any(folder.glob("unet/*.pdparams")),
        time_cond_proj_dim=unet.get("time_cond_proj_dim"),
        scheduler_class=class_of(index, "scheduler"),
        pipeline=pipeline_of(index, paints_in),
        text_encoder_layers=min(
            one.get("num_hidden_layers", CLIP_LAYERS) for one in encoders.values()
        ),
        tiny_decoder=(folder / TINY).is_dir(),
        second_encoder=SecondEncoder(
            _width(second, "hidden_size"),
            _width(second, "projection_dim"),
            index.get("force_zeros_for_empty_prompt", True),
        )
        if second
        else None,
        **PIPELINE_DEFAULTS.get(index.get("_class_name"), {}),
    )


def _width(config: dict, name: str) -> int:
    """A width in a text encoder's configuration; transformers' defaults for CLIP are as wide."""
    return config.get(name, CLIP_WIDTH)


def is_fastdeploy_folder(folder: Path) -> bool:
    """Whether `folder` holds programs that were exported for FastDeploy instead of weights."""
    return (folder / "unet" / "inference.pdmodel").is_file()


def with_size(source: Source, height: int | None, width: int | None) -> Source:
    """`source` with another usual size of the picture, in pixels; None leaves it.

    ExportError for a size that the model cannot draw.
    """
    usual = [side * source.vae_scale_factor for side in source.sample_size]
    pixels = [new or old for new, old in zip((height, width), usual)]
    if pixels != usual and source.fixed_size:
        raise ExportError(f"the networks draw {usual[0]}x{usual[1]} pixels and no other size")
    if any(side % source.vae_scale_factor for side in pixels):
        raise ExportError(
            f"{pixels[0]}x{pixels[1]}: allowed: multiples of {source.vae_scale_factor}"
        )
    latents = tuple(side // source.vae_scale_factor for side in pixels)
    return dataclasses.replace(source, sample_size=latents)


def pipeline_numbers(
    source: Source, num_inference_steps: int | None = None, guidance_scale: float | None = None
) -> dict:
    """The content of `pipeline.json`; what is None stays out."""
    height, width = source.sample_size
    numbers = {
        "height": height * source.vae_scale_factor,
        "width": width * source.vae_scale_factor,
        "latent_channels": source.latent_channels,
        "vae_scale_factor": source.vae_scale_factor,
        "scaling_factor": source.scaling_factor,
    }
    optional = {
        "shift_factor": source.shift_factor or None,
        "num_inference_steps": (
            source.num_inference_steps if num_inference_steps is None else num_inference_steps
        ),
        "guidance_scale": source.guidance_scale if guidance_scale is None else guidance_scale,
        "time_cond_proj_dim": source.time_cond_proj_dim,
        "unet_in_channels": 2 * source.latent_channels + 1 if source.paints_in else None,
        "vocab_size": source.vocab_size,
        "max_position_embeddings": source.text_length,
        "text_encoder_layers": source.text_encoder_layers,
    }
    if source.second_encoder and source.second_encoder.force_zeros_for_empty_prompt:
        optional["force_zeros_for_empty_prompt"] = 1
    numbers.update({key: value for key, value in optional.items() if value is not None})
    return numbers


def read_json(path: Path) -> dict:
    """The JSON object in `path`; ExportError if it is missing or is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{path} is missing: the folder is not in the diffusers layout") from None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ExportError(f"{path} holds no JSON object")
    return value
