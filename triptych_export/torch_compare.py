"""What was exported beside diffusers' own pipeline: the tokens, and a whole picture."""

from __future__ import annotations

import base64
import functools
import gc
import inspect
import io
import itertools
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders import TextualInversionLoaderMixin
from PIL import Image
from transformers import CLIPTokenizer

from triptych.model_files import ModelFiles
from triptych.picture.request import read_request
from triptych.pipeline import LIMITS, Pipeline
from triptych.settings import Settings
from triptych.tokenizer import Tokenizer
from triptych_export import onnx_files, torch_road
from triptych_export.errors import ExportError
from triptych_export.picture import psnr
from triptych_export.repository import Replacement
from triptych_export.source import Source
from triptych_export.stages import stages
from triptych_export.tokenizer_files import added_tokens

LEAST = 40.0
"""Decibels between the pictures: what the numbers of two frameworks may differ in."""
SIDE, STEPS = 16, 4
"""Latents of the picture along a side at the most, and its steps: a full-size model takes seconds.
"""
PROMPT = "a Red circle, on 12 blue-green hills"


def compare_tokens(source: Source, folder: Path) -> None:
    """ExportError if the tokenizer in `folder` reads a text otherwise than the source's does.

    The texts have every added token of the source.
    """
    ours = Tokenizer(folder)
    pads = {"tokenizer": None}
    if source.second_encoder is not None:
        pads["tokenizer_2"] = ModelFiles.load(folder).pad_token_id_2
    added = [token["content"] for token in added_tokens(source.folder / "tokenizer").values()]
    texts = (PROMPT, *(f"{token} a {token}, red{token}" for token in added))
    for (part, pad), text in itertools.product(pads.items(), texts):
        theirs = CLIPTokenizer.from_pretrained(source.folder / part)
        converted = TextualInversionLoaderMixin().maybe_convert_prompt(text, theirs)
        options = {"padding": "max_length", "max_length": ours.length, "truncation": True}
        expected = theirs(converted, **options).input_ids
        if ours.encode([text], pad)[0][0].tolist() != expected:
            raise ExportError(f"the {part}: {text!r} has other tokens than in {source.folder}")


def compare_pictures(source: Source, new: Replacement) -> float:
    """Decibels between a picture by what was exported and one by diffusers' pipeline.

    ExportError under `LEAST`.
    """
    model_files = ModelFiles.load(new.version_folder("tokenizer"))
    scale = source.vae_scale_factor
    height, width = (scale * min(side, SIDE) for side in source.sample_size)
    request = {
        "prompt": PROMPT,
        "seed": 1,
        "height": height,
        "width": width,
        "num_inference_steps": min(STEPS, model_files.num_inference_steps),
    }
    brought = {}
    if source.paints_in:
        colours = np.random.RandomState(0).randint(0, 256, (2, height, width, 3), np.uint8)
        colours[1], colours[1, : height // 2] = 0, 255
        brought = dict(zip(("image", "mask_image"), map(Image.fromarray, colours)))
        request.update({name: _base64(picture) for name, picture in brought.items()})
    text = json.dumps(request)
    asked = read_request(text.encode(), model_files.defaults(), LIMITS)
    expected = _by_diffusers(source, new, asked.settings, brought)
    gc.collect()
    with new.as_served() as repository:
        error = psnr(Pipeline(repository, model=new.names.model).pixels(text), expected)
    if not error >= LEAST:
        raise ExportError(
            f"the picture is {error:.1f} dB from that of diffusers' pipeline, {LEAST:.0f} are "
            "needed; the repository is as it was"
        )
    return error


def _base64(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _decoded(module: torch.nn.Module, latents: torch.Tensor, **_) -> tuple[torch.Tensor]:
    return (module(latents),)


def _scheduler(source: Source, kind: type) -> diffusers.SchedulerMixin:
    """As the model's own pipeline has it: another may read the file otherwise.

    Of pipelines that diffusers has not, FastDeploy's, none changes what the file says.
    """
    scheduler = kind.from_pretrained(source.folder, subfolder="scheduler")
    own = getattr(diffusers, source.pipeline, None)
    if own is not None:
        parts = dict.fromkeys(inspect.signature(own).parameters)
        scheduler = own(**{**parts, "scheduler": scheduler}).scheduler
    return scheduler


def _by_diffusers(
    source: Source, new: Replacement, settings: Settings, brought: dict[str, Image.Image]
) -> np.ndarray:
    """diffusers' picture, uint8 [height, width, 3], with the weights as they were stored."""
    parts = {}
    for name, stage in stages(source).items():
        if name == "vae_encoder":
            continue
        module = torch_road.load(stage, source)
        network = module.model
        if name == "vae_decoder" and brought:
            network = torch_road.load_part(AutoencoderKL, source.folder, "vae")
            if source.tiny_decoder:
                network.decode = functools.partial(_decoded, module)
        if onnx_files.is_stored_in_half(new.version_folder(name) / "model.onnx"):
            for weight in (*module.state_dict().values(), *network.state_dict().values()):
                if weight.is_floating_point() and onnx_files.rounds(weight.numpy()):
                    weight.copy_(weight.half().float())
        parts["vae" if name == "vae_decoder" else name] = network
    parts.update(dict.fromkeys(("feature_extractor", "image_encoder")))
    if source.second_encoder is None:
        kind = StableDiffusionInpaintPipeline if brought else StableDiffusionPipeline
        parts.update(safety_checker=None, requires_safety_checker=False)
    else:
        kind = StableDiffusionXLInpaintPipeline if brought else StableDiffusionXLPipeline
        parts["add_watermarker"] = False
    pipeline = kind.from_pretrained(source.folder, low_cpu_mem_usage=False, **parts)
    pipeline.scheduler = _scheduler(source, type(pipeline.scheduler))
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        (picture,) = pipeline(
            settings.prompt,
            height=settings.height,
            width=settings.width,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(settings.seed),
            output_type="np",
            **brought,
        ).images
    return (picture * 255).round().astype(np.uint8)
