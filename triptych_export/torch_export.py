"""The export through PyTorch: every stage traced, written, and compared with diffusers."""

from __future__ import annotations

import dataclasses
import gc
import re
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from triptych_export import onnx_files, torch_road
from triptych_export.check import Wanted, finish_stage
from triptych_export.errors import ExportError
from triptych_export.families import PARTS, SECOND
from triptych_export.progress import Progress
from triptych_export.source import Source
from triptych_export.stages import Stage, examples_to_check
from triptych_export.torch_compare import compare_pictures, compare_tokens

__all__ = ["compare_pictures", "compare_tokens", "export_stage", "fetch", "no_encoder"]


def no_encoder(source: Source) -> str | None:
    """Why `export_stage` can make no vae_encoder of this model; None if it can."""
    if source.paddle or torch_road.has_encoder(source):
        return None
    return "its weights are zeros, as of a model that was rebuilt from a repository without it"


def export_stage(
    stage: Stage, source: Source, folder: Path, wanted: Wanted, progress: Progress
) -> None:
    """Write `stage` as folder/model.onnx; ExportError if it is not what diffusers computes."""
    if source.paddle:
        raise ExportError(f"{source.folder} holds Paddle's weights: add --framework paddle")
    feeds = examples_to_check(stage, source)
    with progress.step(f"{stage.name}: load"):
        module = torch_road.load(stage, source)
    with progress.step(f"{stage.name}: run in PyTorch"):
        expected = torch_road.run(module, feeds)
        if wanted.cuda and stage.name == "vae_decoder":
            wanted = _unless_half_overflows(module, source, feeds, wanted, progress)
    with progress.step(f"{stage.name}: trace and write"):
        model = torch_road.export(module, stage, source, folder)
        del module
        onnx_files.save(model, folder)
        del model
        gc.collect()
    finish_stage(stage, folder, feeds, expected, wanted, progress)


def _unless_half_overflows(
    module: torch.nn.Module, source: Source, feeds: list[dict], wanted: Wanted, progress: Progress
) -> Wanted:
    """`wanted`, without a graph in half precision where latents as noise is are too much for it."""
    noise = {name: values / source.scaling_factor for name, values in feeds[0].items()}
    largest = torch_road.largest(module, noise)
    if largest < onnx_files.HALF_MAX:
        return wanted
    progress.say(
        f"vae_decoder: its layers give numbers up to {largest:.0f}, half precision's end at "
        f"{onnx_files.HALF_MAX:.0f}: it is served in single precision, not fused for CUDA; --vae "
        "takes a VAE that was repaired"
    )
    return dataclasses.replace(wanted, cuda=False)


def fetch(name: str, folder: Path) -> Path:
    """Download the model that the Hugging Face hub knows as `name`; the folder with its files."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ExportError(f"{name} is neither a folder nor a model's name (owner/name)")
    wanted = ["*.json", "*.txt", "*.safetensors"]
    parts = [f"{part}/{pattern}" for part in (*PARTS, *SECOND) for pattern in wanted]
    try:
        return Path(
            snapshot_download(name, local_dir=folder, allow_patterns=["model_index.json", *parts])
        )
    except Exception as error:
        raise ExportError(
            f"{name} cannot be downloaded ({type(error).__name__}: {error}); without a network, "
            "download it elsewhere and give the folder with its model_index.json"
        ) from error
