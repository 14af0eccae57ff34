"""A folder in diffusers' layout with another VAE, LoRAs, tokens of textual inversion, or scheduler.

What changes is written to a folder of its own, which links to all that stays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.textual_inversion import load_textual_inversion_state_dicts
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from triptych_export import loras, single_file_road, torch_road
from triptych_export.errors import ExportError
from triptych_export.families import PARTS, SECOND
from triptych_export.known_configs import TINY_DECODER, refuse_unknown_keys
from triptych_export.single_file import require_weights, safetensors_shapes, what_else
from triptych_export.source import TINY, read_json


def changed(folder: Path, options: argparse.Namespace, scratch: Path) -> Path:
    """`folder`, or where the options change the model, a folder under `scratch` that holds it.

    Options: vae, tiny_decoder, embedding, lora, prediction_type, rescale_betas_zero_snr.
    ExportError for a file that is something else.
    """
    scheduler = {}
    if options.prediction_type:
        scheduler["prediction_type"] = options.prediction_type
    if options.rescale_betas_zero_snr:
        scheduler["rescale_betas_zero_snr"] = True
    if not (options.vae or options.tiny_decoder or options.embedding or options.lora or scheduler):
        return folder
    result = _linked(folder, scratch / "changed")
    if options.vae:
        _replace_vae(result, options.vae, scratch)
    if options.tiny_decoder:
        _add_tiny_decoder(result, options.tiny_decoder)
    if options.embedding:
        _add_embeddings(result, options.embedding)
    if options.lora:
        _add_loras(result, options.lora)
    if scheduler:
        path = _own(result, "scheduler") / "scheduler_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**config, **scheduler}, indent=2) + "\n", encoding="utf-8")
    return result


def _linked(folder: Path, result: Path) -> Path:
    """`result`, with links to the parts of `folder` and its index, without a safety checker."""
    result.mkdir()
    for part in (*PARTS, *SECOND):
        if part in PARTS or (folder / part).is_dir():
            (result / part).symlink_to((folder / part).resolve())
    index = folder / "model_index.json"
    if index.is_file():
        (result / index.name).write_bytes(index.read_bytes())
    return result


def _own(result: Path, part: str) -> Path:
    """The folder of a part, its files copied from where the link led."""
    folder = result / part
    if folder.is_symlink():
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        folder.unlink()
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return folder


def _replace_vae(result: Path, vae: Path, scratch: Path) -> None:
    """Put the VAE of a folder, a model's or its own, or of a single file in the place of vae/."""
    if vae.is_dir():
        own = vae if (vae / "config.json").is_file() else vae / "vae"
        if not (own / "config.json").is_file():
            raise ExportError(f"--vae {vae}: neither it nor its vae/ has a config.json")
        (result / "vae").unlink()
        (result / "vae").symlink_to(own.resolve())
        return
    network = single_file_road.load_vae(vae, result, scratch)
    (result / "vae").unlink()
    network.save_pretrained(result / "vae")


def _add_tiny_decoder(result: Path, folder: Path) -> None:
    """Link to the folder of an AutoencoderTiny; ExportError unless it can decode the model's."""
    path = folder / "config.json"
    config = read_json(path)
    name = config.get("_class_name")
    if name != "AutoencoderTiny":
        raise ExportError(f"{path}: its _class_name is {name}; --tiny-decoder: AutoencoderTiny")
    refuse_unknown_keys(path, config, TINY_DECODER)
    network = AutoencoderTiny.from_config(config).config
    vae = AutoencoderKL.load_config(result / "vae")
    times = network.upsampling_scaling_factor ** (len(network.num_decoder_blocks) - 1)
    usual = 2 ** (len(vae["block_out_channels"]) - 1)
    if (network.latent_channels, times) != (vae["latent_channels"], usual):
        raise ExportError(
            f"{path}: {network.latent_channels} channels of latents and {times} pixels to one; "
            f"the model has {vae['latent_channels']} and {usual}"
        )
    (result / TINY).symlink_to(folder.resolve())


def _add_loras(result: Path, chosen: list[tuple[Path, float]]) -> None:
    networks = {
        "unet": torch_road.load_part(UNet2DConditionModel, result, "unet"),
        **_text_encoders(result),
    }
    loras.add(networks, chosen)
    _save(result, networks)


def _add_embeddings(result: Path, files: list[Path]) -> None:
    """Add each file's vectors to the text encoders, and a token to the tokenizers: the file's name.

    diffusers' load_textual_inversion calls the tokens of several vectors NAME NAME_1 NAME_2, which
    in a prompt are NAME.
    """
    encoders = _text_encoders(result)
    tokenizers = {
        part: CLIPTokenizer.from_pretrained(result / part)
        for part in (name.replace("text_encoder", "tokenizer") for name in encoders)
    }
    pipeline = StableDiffusionPipeline(*[None] * 7, requires_safety_checker=False)
    for path in files:
        require_weights(path)
        if path.suffix == ".safetensors":
            meaning = what_else(safetensors_shapes(path))
            if meaning not in (None, "a textual inversion embedding"):
                raise ExportError(f"--embedding {path} is {meaning}")
        try:
            (read,) = load_textual_inversion_state_dicts([str(path)], local_files_only=True)
            vectors = _vectors(read, len(encoders))
            for own, network, words in zip(vectors, encoders.values(), tokenizers.values()):
                pipeline.load_textual_inversion(
                    own, token=path.stem, text_encoder=network, tokenizer=words
                )
        except Exception as error:
            raise ExportError(f"--embedding {path} does not load: {error}") from error
    _save(result, {**encoders, **tokenizers})


def _text_encoders(result: Path) -> dict[str, torch.nn.Module]:
    kinds = {"text_encoder": CLIPTextModel}
    if (result / SECOND[0]).is_dir():
        kinds[SECOND[0]] = CLIPTextModelWithProjection
    return {part: torch_road.load_part(kind, result, part) for part, kind in kinds.items()}


def _save(result: Path, parts: dict[str, Any]) -> None:
    """Write each part to its folder, in the place of the link to it."""
    for part, new in parts.items():
        if (result / part).is_symlink():
            (result / part).unlink()
        new.save_pretrained(result / part)


def _vectors(read: Any, encoders: int) -> list[Any]:
    """What a file, as diffusers read it, has for each text encoder; ValueError where it has not."""
    found = [read[name] for name in ("clip_l", "clip_g") if isinstance(read, dict) and name in read]
    if encoders == 1:
        if len(found) > 1:
            raise ValueError("it has vectors for SDXL's two text encoders, and this model has one")
        return [read]
    if len(found) < 2:
        raise ValueError("SDXL takes vectors for both text encoders, named clip_l and clip_g")
    counts = [len(torch.atleast_2d(one)) for one in found]
    if len(set(counts)) > 1:
        raise ValueError("it has {} vectors named clip_l and {} named clip_g".format(*counts))
    return found
