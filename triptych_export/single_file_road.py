"""A model in a single file to a folder in diffusers' layout, by diffusers' own loader."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders import single_file_model, single_file_utils
from safetensors.torch import save_file

from triptych_export.errors import ExportError
from triptych_export.single_file import (
    UNET_INPUT,
    is_sdxl,
    require_weights,
    safetensors_shapes,
    text_width,
)
from triptych_export.single_file_configs import write_configs
from triptych_export.source import read_json

STEPS_OF_2_BASE = 875_000
"""The training steps that a file of Stable Diffusion 2.0's base model, of epsilon, tells."""


class _Inert:
    """What stands for a class that a .ckpt names: it holds nothing and does nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


def to_folder(
    path: Path,
    scratch: Path,
    config: Path | None = None,
    prediction_type: str | None = None,
    vae: bool = True,
) -> Path:
    """The model in the file `path`, written as a folder in diffusers' layout under `scratch`.

    prediction_type: epsilon or v_prediction, None as the file tells. config: a folder in diffusers'
    layout whose small files say what the file does not; None for Stable Diffusion 1.x, 2.x and XL.
    vae: whether the file's VAE is wanted, else the folder has the configuration of one alone.
    ExportError, before weights are converted, for a file that is something else.
    """
    weights, told = as_safetensors(path, scratch)
    shapes = safetensors_shapes(weights)
    width, sdxl = text_width(path, shapes, vae), is_sdxl(shapes)
    if config is None:
        if width not in ((2048,) if sdxl else (768, 1024)):
            usual = "SDXL's are 2048" if sdxl else "Stable Diffusion's are 768 or 1024"
            raise ExportError(
                f"{path}: its UNet attends to embeddings {width} wide, {usual}; a folder in "
                "diffusers' layout with its configurations goes to --config"
            )
        config = scratch / "configs"
        channels, told = shapes[UNET_INPUT][1], told | set(shapes)
        write_usual_configs(config, width, channels, told, prediction_type)
    kind = StableDiffusionXLPipeline if sdxl else StableDiffusionPipeline
    more = {} if sdxl else {"requires_safety_checker": False}
    if not vae:
        more["vae"] = None
    with _complete(path):
        pipeline = kind.from_single_file(
            str(weights),
            config=str(config),
            local_files_only=True,
            torch_dtype=torch.float32,
            feature_extractor=None,
            **more,
        )
    folder = scratch / "single_file"
    pipeline.save_pretrained(folder)
    if not vae:
        shutil.copytree(
            config / "vae", folder / "vae", ignore=lambda _, names: set(names) - {"config.json"}
        )
        path = folder / "model_index.json"
        index = {**read_json(path), "vae": ["diffusers", "AutoencoderKL"]}
        path.write_text(json.dumps(index), encoding="utf-8")
    return folder


def write_usual_configs(
    folder: Path, width: int, in_channels: int, told: set[str], prediction_type: str | None
) -> None:
    """`write_configs` with what the file says by the names in it, `told`."""
    prediction = prediction_type or _prediction_type(told, width == 1024, in_channels == 9)
    scheduler = {"prediction_type": prediction}
    if "ztsnr" in told:
        scheduler["rescale_betas_zero_snr"] = True
    sides = {768: 512, 1024: 768 if prediction == "v_prediction" else 512, 2048: 1024}
    write_configs(folder, width, in_channels, sides[width], scheduler)


def as_safetensors(path: Path, scratch: Path) -> tuple[Path, set[str]]:
    """`path` itself if it is a .safetensors file, else one of the same weights under `scratch`.

    Beside it what the file tells that is no tensor: names, and `global_step=N`. A .ckpt is a
    pickle, which can name any function for its reader to call: nothing that it names is imported,
    an inert class stands for all but tensors.
    """
    if path.suffix == ".safetensors":
        return path, set()
    require_weights(path)
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in unknown]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+) whose module", str(error))
        if asked:
            problem = f"asks for {asked[1]}, which no weights need: it is not read any further"
            raise ExportError(f"{path} {problem}") from error
        raise ExportError(f"{path} is no file of PyTorch's: {error}") from error
    except (RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise ExportError(f"{path} is cut off, or no file of PyTorch's: {error}") from error
    told = set()
    while isinstance(state, dict):
        told |= {name for name, value in state.items() if not isinstance(value, torch.Tensor)}
        if "global_step" in state:
            told.add(f"global_step={int(state['global_step'])}")
        if "state_dict" not in state:
            break
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ExportError(f"{path} holds no table of weights")
    tensors = {
        name: value.clone().contiguous()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    weights = scratch / f"{path.stem}.safetensors"
    save_file(tensors, weights, {"format": "pt"})
    return weights, told


def load_vae(path: Path, config: Path, scratch: Path) -> AutoencoderKL:
    """The VAE in the file `path`, its sizes as config/vae says."""
    weights, _ = as_safetensors(path, scratch)
    names = safetensors_shapes(weights)
    if not any(name.endswith("decoder.conv_in.weight") for name in names):
        raise ExportError(f"--vae {path}: holds no VAE")
    with _complete(path):
        return AutoencoderKL.from_single_file(
            str(weights), config=str(config), subfolder="vae", local_files_only=True
        )


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[None]:
    """ExportError if diffusers' loader fails, or leaves a weight as it was made at random.

    It loads with strict=False and says nothing of weights that the file lacks. With accelerate
    installed it would not load them by load_state_dict, and end at the first that is missing.
    """
    missing: list[str] = []
    load = torch.nn.Module.load_state_dict

    def noting(module, *args, **kwargs):
        result = load(module, *args, **kwargs)
        missing.extend(f"{type(module).__name__}'s {name}" for name in result.missing_keys)
        return result

    with contextlib.ExitStack() as patches:
        for owner, name, value in (
            (torch.nn.Module, "load_state_dict", noting),
            (single_file_model, "_LOW_CPU_MEM_USAGE_DEFAULT", False),
            (single_file_utils, "is_accelerate_available", lambda: False),
        ):
            patches.enter_context(mock.patch.object(owner, name, value))
        try:
            yield
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExportError(f"{path} does not load: {error}") from error
    if missing:
        shown = ", ".join(missing[:3])
        raise ExportError(f"{path}: {len(missing)} weights missing: {shown} ...")


def _prediction_type(told: set[str], second: bool, paints_in: bool) -> str:
    """What the file tells, as diffusers decides it; says so where it is 2.x and does not tell."""
    if "v_pred" in told:
        return "v_prediction"
    if not second or paints_in or f"global_step={STEPS_OF_2_BASE}" in told:
        return "epsilon"
    print(
        "unet: the file does not tell what it predicts: v_prediction and 768x768 are assumed, as "
        "of Stable Diffusion 2.1; a base model of 2.x, of 512x512, needs --prediction-type epsilon"
    )
    return "v_prediction"
