"""A served repository back to a folder in the layout of diffusers, for its pipelines to load."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import diffusers
import onnx
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    LatentConsistencyModelPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from triptych import trained_words
from triptych.names import MODEL, STAGES, Names
from triptych_export.disk import room_in
from triptych_export.errors import ExportError
from triptych_export.source import read_json
from triptych_export.weight_names import read_weights

transformers.utils.logging.disable_progress_bar()

ENCODER = ("encoder.", "quant_conv.")
DECODER = ("decoder.", "post_quant_conv.")
"""How the names of the VAE's weights begin, of its two stages."""
OLDER = "text_model."
"""Begins the names of the text encoder's weights in older releases of transformers."""


def rebuild(repository: Path, output: Path, model: str = MODEL) -> None:
    """Write one of the models that `repository` serves to `output`, weights in single precision.

    Of a repository without vae_encoder the encoder's weights are zeros, so no picture can be
    encoded with it. ExportError if a stage is missing, does not load, keeps no names of weights or
    lacks one, and for SDXL, whose last layer of the first text encoder nothing needs and nothing
    keeps.
    """
    made = pipeline(repository, model)
    with room_in(output, "the weights need room in single precision"):
        made.save_pretrained(output)
    words = repository / Names(model).stage("tokenizer") / "1" / trained_words.FILE
    if words.is_file():
        shutil.copyfile(words, output / "tokenizer" / words.name)


def pipeline(repository: Path, model: str = MODEL) -> DiffusionPipeline:
    """diffusers' pipeline, with the weights that `repository` serves: see `rebuild`.

    Of the class that such a UNet was made for, as others set some of the scheduler's options anew.
    """
    folders = {stage: repository / Names(model).stage(stage) for stage in STAGES}
    if folders["text_encoder_2"].is_dir():
        raise ExportError(f"{model} is of SDXL's kind: what is served of it is no whole model")
    if not folders["unet_loop"].is_dir():
        raise ExportError(f"{repository} holds no model {model}")
    scheduler = _scheduler(folders["unet_loop"] / "1" / "scheduler_config.json")
    tokenizer = folders["tokenizer"] / "1"
    with _loading(tokenizer):
        words = CLIPTokenizer.from_pretrained(tokenizer)
    unet = _network(folders["unet"], UNet2DConditionModel.from_config)
    kind = StableDiffusionPipeline
    if unet.config.time_cond_proj_dim is not None:
        kind = LatentConsistencyModelPipeline
    elif unet.config.in_channels != unet.config.out_channels:
        kind = StableDiffusionInpaintPipeline
    return kind(
        vae=_vae(folders["vae_decoder"], folders["vae_encoder"]),
        text_encoder=_network(folders["text_encoder"], _text_encoder),
        tokenizer=words,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # what onnx, diffusers and transformers raise is many
        raise ExportError(f"{path} does not load: {error!r}") from error


def _scheduler(path: Path):
    config = read_json(path)
    with _loading(path):
        return getattr(diffusers, config["_class_name"]).from_config(config)


def _vae(decoder: Path, encoder: Path) -> AutoencoderKL:
    vae = _network(decoder, _autoencoder, ENCODER)
    if encoder.is_dir():
        other = _network(encoder, AutoencoderKL.from_config, DECODER)
        vae.encoder, vae.quant_conv = other.encoder, other.quant_conv
    return vae


def _autoencoder(config: dict) -> AutoencoderKL:
    if config.get("_class_name") == "AutoencoderTiny":
        raise ExportError("vae_decoder is a tiny decoder: the model's own is not in the repository")
    return AutoencoderKL.from_config(config)


def _text_encoder(config: dict) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**config))


def _network(stage: Path, create, zeros: tuple[str, ...] = ()) -> torch.nn.Module:
    """A stage's network, made by create(config); weights whose names begin with `zeros` are 0."""
    path = stage / "1" / "model.onnx"
    if not path.is_file():
        raise ExportError(f"{path} is missing: {stage.parent} holds no such exported model")
    with _loading(path):
        weights, config = read_weights(onnx.load(str(path)))
        network = create(config)
    with torch.no_grad():
        for name, weight in network.state_dict().items():
            if name.startswith(zeros or "-"):
                weight.zero_()
                continue
            values = weights.get(name, weights.get(name.removeprefix(OLDER)))
            if values is not None and values.size == weight.numel():
                weight.copy_(torch.tensor(values).reshape(weight.shape))
            else:
                raise ExportError(f"{path} has no weight {name} of shape {list(weight.shape)}")
    return network.eval()
