"""A folder of weights in the layout of diffusers: what it is, and the numbers to serve it with."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from triptych_export.errors import ExportError
from triptych_export.known_configs import (
    ANY_TRANSFORMER,
    TEXT_ENCODER,
    UNET,
    VAE,
    refuse_unknown_keys,
)

PARTS = ("text_encoder", "unet", "vae", "tokenizer", "scheduler")
TINY = "tiny_decoder"
"""The folder of what decodes in the VAE's place, beside the parts."""
CLIP_LENGTH = 77
"""Tokens of a prompt, padding included, where the configuration has no other number."""
CLIP_LAYERS = 12
"""Hidden layers of the text encoder where the configuration does not say: CLIP's, in transformers.
"""
OLD_SCALING_FACTOR = 0.18215
"""The VAE's factor where the configuration is older than the key: Stable Diffusion 1.x's."""
CLASSES = {
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}
PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "FastDeployStableDiffusionPipeline",
    "FastDeployStableDiffusionImg2ImgPipeline",
    "FastDeployStableDiffusionInpaintPipeline",
    "FastDeployStableDiffusionMegaPipeline",
    "OnnxStableDiffusionPipeline",
)
"""Pipelines of diffusers and ppdiffusers that draw what the served stages draw."""
PIPELINE_DEFAULTS = {
    "LatentConsistencyModelPipeline": {"num_inference_steps": 4, "guidance_scale": 8.5}
}
"""Where a pipeline of diffusers has other defaults than StableDiffusionPipeline."""


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
    scheduler_class: what model_index.json names, None where it names none. paints_in: the UNet was
    made to paint in pictures: it takes a mask and the latents of what stays beside its own.
    text_encoder_layers: how many hidden layers the text encoder has; None where its graph takes
    tokens and nothing else. tiny_decoder: an AutoencoderTiny in TINY decodes in the VAE's place.
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
    fixed_size: bool = False
    time_cond_proj_dim: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler_class: str | None = None
    paints_in: bool = False
    text_encoder_layers: int | None = None
    tiny_decoder: bool = False


def open_source(folder: Path) -> Source:
    """Read the configurations of `folder`.

    ExportError if it is no Stable Diffusion 1.x or 2.x for text to image, or says something that
    the export does not know.
    """
    index = read_json(folder / "model_index.json")
    refuse_other_families(index)
    refuse_other_classes(index)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise ExportError(f"{folder}: no {part}/; the diffusers layout has {', '.join(PARTS)}")
    text_encoder = read_json(folder / "text_encoder" / "config.json")
    unet = read_json(folder / "unet" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    read_json(folder / "scheduler" / "scheduler_config.json")
    if text_encoder.get("model_type", "clip") not in ("clip", "clip_text_model"):
        raise ExportError(
            f"{folder / 'text_encoder'}: a text encoder of the kind {text_encoder['model_type']}; "
            "the served stages have CLIP's"
        )
    refuse_other_unets(unet)
    for part, config, known in (
        ("text_encoder", text_encoder, TEXT_ENCODER | ANY_TRANSFORMER),
        ("unet", unet, UNET),
        ("vae", vae, VAE),
    ):
        refuse_unknown_keys(folder / part / "config.json", config, known)
    width = unet.get("cross_attention_dim")
    if width != text_encoder.get("hidden_size"):
        raise ExportError(
            f"{folder}: the UNet attends to embeddings {width} wide, the text encoder makes "
            f"{text_encoder.get('hidden_size')}: these are not parts of one model"
        )
    size = unet["sample_size"]
    return Source(
        folder=folder,
        sample_size=(size, size) if isinstance(size, int) else tuple(size),
        latent_channels=unet["out_channels"],
        paints_in=unet["in_channels"] != unet["out_channels"],
        hidden_size=width,
        text_length=text_encoder.get("max_position_embeddings", CLIP_LENGTH),
        vocab_size=text_encoder["vocab_size"],
        vae_scale_factor=2 ** (len(vae["block_out_channels"]) - 1),
        scaling_factor=vae.get("scaling_factor", OLD_SCALING_FACTOR),
        shift_factor=vae.get("shift_factor"),
        paddle="_ppdiffusers_version" in index or any(folder.glob("unet/*.pdparams")),
        time_cond_proj_dim=unet.get("time_cond_proj_dim"),
        scheduler_class=class_of(index, "scheduler"),
        text_encoder_layers=text_encoder.get("num_hidden_layers", CLIP_LAYERS),
        tiny_decoder=(folder / TINY).is_dir(),
        **PIPELINE_DEFAULTS.get(index.get("_class_name"), {}),
    )


def class_of(index: dict, part: str) -> str | None:
    """The class that model_index.json names for a part: its entries are [library, class]."""
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def refuse_other_classes(index: dict) -> None:
    """ExportError for a part of another class than those that are exported, or of none."""
    for part in PARTS:
        if index.get(part) == [None, None]:
            raise ExportError(f"model_index.json: {part} is null; a picture cannot be made without")
    for part, allowed in CLASSES.items():
        found = class_of(index, part)
        if found is not None and found not in allowed:
            raise ExportError(
                f"model_index.json: the {part} is of the class {found}; the served stages have "
                f"{' or '.join(allowed)}"
            )


def refuse_other_families(index: dict) -> None:
    """ExportError for a pipeline with other stages than Stable Diffusion 1.x and 2.x have."""
    name = index.get("_class_name", "")
    if "XL" in name or "text_encoder_2" in index:
        raise ExportError(
            f"{name or 'this model'} is of the SDXL family: two text encoders and extra size "
            "conditions, which the served stages do not have; use Stable Diffusion 1.x or 2.x"
        )
    if "transformer" in index or "prior" in index or "unet" not in index:
        raise ExportError(
            f"{name or 'this model'} is not a Stable Diffusion 1.x or 2.x model: model_index.json "
            "names no unet beside the text encoder and the VAE"
        )
    if name and name not in PIPELINES:
        raise ExportError(
            f"model_index.json: the pipeline {name} is not known and may draw something else; "
            f"known are {', '.join(PIPELINES)}; if it draws as one of them, write that name there"
        )


def refuse_other_unets(unet: dict) -> None:
    """ExportError for a UNet with inputs beyond sample, timestep and the text embeddings."""
    if unet.get("addition_embed_type"):
        raise ExportError(
            f"the UNet takes extra conditions (addition_embed_type {unet['addition_embed_type']}), "
            "as SDXL's does; use a Stable Diffusion 1.x or 2.x model"
        )
    if unet.get("out_channels") != 4:
        raise ExportError(
            f"the UNet's latents have {unet.get('out_channels')} channels; the served stages have 4"
        )
    if unet.get("in_channels") not in (4, 9):
        raise ExportError(
            f"the UNet takes {unet.get('in_channels')} channels and gives 4; text-to-image models "
            "take 4, inpainting models 9; depth and edit models are not served"
        )
    if unet.get("sample_size") is None:
        raise ExportError(
            "unet/config.json has no sample_size: the default picture size is unknown"
        )


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
