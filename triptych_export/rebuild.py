"""A served repository back to a folder in the layout of diffusers, for its pipelines to load."""

from __future__ import annotations

from pathlib import Path

import diffusers
import onnx
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from triptych_export.errors import ExportError
from triptych_export.source import read_json
from triptych_export.weight_names import read_weights

transformers.utils.logging.disable_progress_bar()

ENCODER = ("encoder.", "quant_conv.")
DECODER = ("decoder.", "post_quant_conv.")
"""How the names of the VAE's weights begin, of its two stages."""


def rebuild(repository: Path, output: Path) -> None:
    """Write the model that `repository` serves to `output`, weights in single precision.

    Of a repository without vae_encoder the encoder's weights are zeros, so no picture can be
    encoded with it. ExportError if a stage is missing, keeps no names of weights or lacks one.
    """
    pipeline(repository).save_pretrained(output)


def pipeline(repository: Path) -> StableDiffusionPipeline:
    """diffusers' pipeline with the weights that `repository` serves; see `rebuild`."""
    scheduler = read_json(repository / "unet_loop" / "1" / "scheduler_config.json")
    return StableDiffusionPipeline(
        vae=_vae(repository),
        text_encoder=_network(repository, "text_encoder", _text_encoder),
        tokenizer=CLIPTokenizer.from_pretrained(repository / "tokenizer" / "1"),
        unet=_network(repository, "unet", UNet2DConditionModel.from_config),
        scheduler=getattr(diffusers, scheduler["_class_name"]).from_config(scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _vae(repository: Path) -> AutoencoderKL:
    vae = _network(repository, "vae_decoder", AutoencoderKL.from_config, ENCODER)
    if (repository / "vae_encoder").is_dir():
        other = _network(repository, "vae_encoder", AutoencoderKL.from_config, DECODER)
        vae.encoder, vae.quant_conv = other.encoder, other.quant_conv
    return vae


def _text_encoder(config: dict) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**config))


def _network(repository: Path, stage: str, create, zeros: tuple[str, ...] = ()) -> torch.nn.Module:
    """The network of `stage`, made by create(config); weights whose names begin so are zeros."""
    path = repository / stage / "1" / "model.onnx"
    if not path.is_file():
        raise ExportError(f"{path} is missing: {repository} holds no exported model")
    weights, config = read_weights(onnx.load(str(path)))
    network = create(config)
    with torch.no_grad():
        for name, weight in network.state_dict().items():
            if name.startswith(zeros or "-"):
                weight.zero_()
            elif name in weights and weights[name].size == weight.numel():
                weight.copy_(torch.tensor(weights[name]).reshape(weight.shape))
            else:
                raise ExportError(f"{path} has no weight {name} of shape {list(weight.shape)}")
    return network.eval()
