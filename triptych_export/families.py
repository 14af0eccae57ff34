"""Which families of models are exported, told by their configurations, and what is refused."""

from __future__ import annotations

from triptych_export.errors import ExportError

PARTS = ("text_encoder", "unet", "vae", "tokenizer", "scheduler")
SECOND = ("text_encoder_2", "tokenizer_2")
"""What models of SDXL's kind have beside `PARTS`."""
SIZES = 6
"""Numbers of `time_ids`, that SDXL's UNet is told."""
CLASSES = {
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}
INPAINT = "StableDiffusionInpaintPipeline"
PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    INPAINT,
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
SDXL_PIPELINES = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
)
"""The same for models of SDXL's kind."""
PIPELINE_DEFAULTS = {
    "LatentConsistencyModelPipeline": {"num_inference_steps": 4, "guidance_scale": 8.5},
    "LatentConsistencyModelImg2ImgPipeline": {"num_inference_steps": 4, "guidance_scale": 8.5},
    "StableDiffusionXLPipeline": {"guidance_scale": 5.0},
    "StableDiffusionXLImg2ImgPipeline": {"guidance_scale": 5.0},
}
"""Where a pipeline of diffusers has other defaults than StableDiffusionPipeline."""


def class_of(index: dict, part: str) -> str | None:
    """The class that model_index.json names for a part: its entries are [library, class]."""
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def pipeline_of(index: dict, paints_in: bool = False) -> str:
    """The pipeline's class that model_index.json names, or the usual one of the model's kind.

    paints_in: the UNet was made to paint in pictures. Of the pipelines for Stable Diffusion 1.x and
    2.x INPAINT alone runs such a UNet, whatever is named.
    """
    if has_two_text_encoders(index):
        return index.get("_class_name") or SDXL_PIPELINES[0]
    return INPAINT if paints_in else index.get("_class_name") or PIPELINES[0]


def refuse_other_classes(index: dict) -> None:
    """ExportError for a part of another class than those that are exported, or of none."""
    for part in (*PARTS, *SECOND):
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
    """ExportError for a pipeline with other stages than Stable Diffusion 1.x, 2.x and XL have."""
    name = index.get("_class_name", "")
    if "XL" in name and index.get("text_encoder") == [None, None]:
        raise ExportError(
            f"{name} without a text_encoder is SDXL's refiner, which is not served: export the "
            "base model"
        )
    if name in SDXL_PIPELINES and not has_two_text_encoders(index):
        raise ExportError(
            f"model_index.json: {name} has two text encoders, and it names no text_encoder_2: the "
            "folder is of no whole SDXL model"
        )
    if name and name not in SDXL_PIPELINES and has_two_text_encoders(index):
        raise ExportError(
            f"model_index.json: the pipeline {name} is not known with two text encoders, as SDXL "
            f"has them; known are {', '.join(SDXL_PIPELINES)}"
        )
    if "transformer" in index or "prior" in index or "unet" not in index:
        raise ExportError(
            f"{name or 'this model'} is not a Stable Diffusion 1.x, 2.x or XL model: "
            "model_index.json names no unet beside the text encoder and the VAE"
        )
    if name and name not in (*PIPELINES, *SDXL_PIPELINES):
        raise ExportError(
            f"model_index.json: the pipeline {name} is not known and may draw something else; "
            f"known are {', '.join(PIPELINES)}; if it draws as one of them, write that name there"
        )


def has_two_text_encoders(index: dict) -> bool:
    """Whether model_index.json is of a model of SDXL's kind."""
    return "text_encoder_2" in index


def refuse_other_unets(unet: dict, pooled: int | None) -> None:
    """ExportError for a UNet with other inputs than its kind has.

    pooled: the width of the second text encoder's pooled embeddings, as SDXL has them; else None.
    """
    told = unet.get("addition_embed_type")
    if told not in ((None,) if pooled is None else ("text_time",)):
        raise ExportError(
            f"the UNet takes extra conditions (addition_embed_type {told}); SDXL's takes "
            "text_time, Stable Diffusion 1.x's and 2.x's none"
        )
    if pooled is not None:
        width, each = (
            unet.get(name)
            for name in ("projection_class_embeddings_input_dim", "addition_time_embed_dim")
        )
        if each is None or width != pooled + SIZES * each:
            raise ExportError(
                f"the UNet takes {width} channels of pooled text and sizes; SDXL's takes {pooled} "
                f"and {SIZES} sizes of {each} (its refiner takes {SIZES - 1} and is not served)"
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
