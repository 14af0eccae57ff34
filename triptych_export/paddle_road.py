"""Weights to native Paddle files and to ONNX, with ppdiffusers. Runs in Paddle's environment."""

from __future__ import annotations

import os
import shutil
import zlib  # noqa: F401  libpaddle exports zlib's symbols: Python's own must be there first
from pathlib import Path

os.environ["USE_PPXFORMERS"] = "False"

import numpy as np
import paddle
from ppdiffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from ppdiffusers.models.attention_processor import AttnProcessor
from ppdiffusers.transformers import CLIPTextModel
from safetensors.numpy import load_file, save_file

from triptych_export import paddle_program
from triptych_export.errors import ExportError
from triptych_export.source import Source
from triptych_export.stages import Stage

PREFIX = "text_model."
CONSTANT_KEY = "embeddings.position_ids"
"""A table that older releases saved as a weight and newer ones compute."""


class _TextEncoder(paddle.nn.Layer):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids, return_dict=True).last_hidden_state


class _UNet(paddle.nn.Layer):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states, timestep_cond=None):
        return self.model(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            return_dict=False,
        )[0]


class _VAEDecoder(paddle.nn.Layer):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latent_sample):
        return self.model.decode(latent_sample, return_dict=False)[0]


class _VAEEncoder(paddle.nn.Layer):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        return self.model.encode(sample, return_dict=False)[0].parameters


def download(name: str, folder: Path) -> None:
    """Put the model that ppdiffusers knows as `name` into `folder`, in Paddle's layout."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        name, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(str(folder))


def trace(stage: Stage, source: Source, folder: Path, feeds: list[dict]) -> list[np.ndarray]:
    """Write folder/model.pdmodel and .pdiparams; what ppdiffusers computes for each of `feeds`."""
    layer = _load(stage, source, folder)
    layer.eval()
    with paddle.no_grad():
        expected = [layer(*map(paddle.to_tensor, call.values())).numpy() for call in feeds]
    traced = paddle.jit.to_static(layer, input_spec=_specs(stage), full_graph=True)
    paddle.jit.save(traced, str(folder / "model"))
    (folder / "model.pdiparams.info").unlink()
    program = paddle_program.read(folder / "model.pdmodel")
    paddle_program.fit_to_stage(program, stage)
    paddle_program.group_norm_in_four_dimensions(program)
    paddle_program.write(program, folder / "model.pdmodel")
    return expected


def _load(stage: Stage, source: Source, scratch: Path) -> paddle.nn.Layer:
    if stage.name == "text_encoder":
        return _TextEncoder(_load_text_encoder(source, scratch))
    if stage.name == "unet":
        model = _load_diffusion(UNet2DConditionModel, source, "unet")
        return _UNet(model)
    model = _load_diffusion(AutoencoderKL, source, "vae")
    return _VAEDecoder(model) if stage.name == "vae_decoder" else _VAEEncoder(model)


def _load_diffusion(kind, source: Source, part: str):
    try:
        model, info = kind.from_pretrained(
            str(source.folder),
            subfolder=part,
            from_diffusers=not source.paddle,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ExportError(f"{source.folder / part} does not load: {error}") from error
    bad = [key for keys in info.values() for key in keys]
    if bad:
        shown = ", ".join(str(key) for key in bad[:3])
        raise ExportError(f"{source.folder / part}: {len(bad)} weights missing or unfit: {shown}")
    model.set_attn_processor(AttnProcessor())
    return model


def _load_text_encoder(source: Source, scratch: Path):
    """The text encoder, its weights compared with the file's: paddlenlp only warns of missing ones.

    Where the file's names lack their prefix, as transformers 5 writes them, they get it back.
    """
    folder = source.folder / "text_encoder"
    weights = _read_text_encoder(folder)
    with_prefix = {
        name if name.startswith(PREFIX) else PREFIX + name: value
        for name, value in weights.items()
        if not name.endswith(CONSTANT_KEY)
    }
    if source.paddle:
        model = CLIPTextModel.from_pretrained(str(folder))
    else:
        copy = scratch / "text_encoder_source"
        copy.mkdir()
        shutil.copyfile(folder / "config.json", copy / "config.json")
        save_file(with_prefix, copy / "model.safetensors", {"format": "pt"})
        model = CLIPTextModel.from_pretrained(str(copy), from_diffusers=True)
        shutil.rmtree(copy)
    loaded = {name: value.numpy() for name, value in model.state_dict().items()}
    bad = set(loaded) ^ set(with_prefix)
    bad |= {name for name in set(loaded) - bad if not _same(loaded[name], with_prefix[name])}
    if bad:
        raise ExportError(f"{folder}: {len(bad)} weights missing or unfit: {sorted(bad)[:3]}")
    return model


def _read_text_encoder(folder: Path) -> dict[str, np.ndarray]:
    for path in (folder / "model.safetensors", folder / "model.fp16.safetensors"):
        if path.is_file():
            return {name: np.float32(value) for name, value in load_file(path).items()}
    path = folder / "model_state.pdparams"
    if path.is_file():
        return {name: value.numpy() for name, value in paddle.load(str(path)).items()}
    raise ExportError(f"{folder}: neither .safetensors nor .pdparams weights")


def _same(loaded: np.ndarray, stored: np.ndarray) -> bool:
    """Equal, or equal when transposed: Paddle keeps a linear layer's weights the other way."""
    return np.array_equal(loaded, stored) or np.array_equal(loaded, stored.T)


def _specs(stage: Stage) -> list[paddle.static.InputSpec]:
    return [
        paddle.static.InputSpec(
            [None if isinstance(axis, str) else axis for axis in axes],
            "int32" if name == "input_ids" else "float32",
            name,
        )
        for name, axes in stage.inputs.items()
    ]
