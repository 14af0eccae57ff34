"""A folder that was exported for FastDeploy: networks as Paddle programs, no weights to trace.

`text_encoder`, `unet`, `vae_decoder` and `vae_encoder` hold `inference.pdmodel` and
`inference.pdiparams`; what configurations would tell is read from the programs, where it is there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from triptych_export import check
from triptych_export.apart import run_apart
from triptych_export.errors import ExportError
from triptych_export.families import (
    class_of,
    has_two_text_encoders,
    pipeline_of,
    refuse_other_families,
)
from triptych_export.paddle_export import CONVERT, RUN
from triptych_export.progress import Progress
from triptych_export.source import (
    CLIP_LENGTH,
    OLD_SCALING_FACTOR,
    Source,
    read_json,
)
from triptych_export.stages import Stage, examples_to_check
from triptych_export.tokenizer_files import count_tokens

FASTDEPLOY = "triptych_export.paddle_fastdeploy"
USUAL_PIXELS = 512
"""Side of a picture where the programs take any size: what FastDeploy's pipeline draws."""


def open_fastdeploy_folder(folder: Path) -> Source:
    """Read `folder`; ExportError if a file is missing or it is no Stable Diffusion 1.x or 2.x."""
    index = read_json(folder / "model_index.json")
    refuse_other_families(index)
    if has_two_text_encoders(index):
        raise ExportError("SDXL is exported from a folder in diffusers' layout, not FastDeploy's")
    read_json(folder / "scheduler" / "scheduler_config.json")
    for part in ("text_encoder", "unet", "vae_decoder"):
        for name in ("inference.pdmodel", "inference.pdiparams"):
            if not (folder / part / name).is_file():
                raise ExportError(f"{folder / part / name} is missing")
    with tempfile.TemporaryDirectory() as scratch:
        told = run_apart(FASTDEPLOY, "describe", folder, log=Path(scratch) / "log")
    _, channels, *size = told["sample"]
    if channels != 4:
        raise ExportError(f"the UNet takes {channels} channels; the served stages have 4")
    if told["whole_timesteps"]:
        print("unet: takes whole timesteps only; those of schedulers between them are cut off")
    fixed = min(size) > 0
    if fixed:
        print(f"unet: was exported for latents of {size[0]}x{size[1]} alone: one picture size")
    tokenizer = folder / "tokenizer"
    usual = USUAL_PIXELS // told["vae_scale_factor"]
    return Source(
        folder=folder,
        sample_size=tuple(size) if fixed else (usual, usual),
        latent_channels=channels,
        hidden_size=told["hidden_size"],
        text_length=read_json(tokenizer / "tokenizer_config.json").get(
            "model_max_length", CLIP_LENGTH
        ),
        vocab_size=count_tokens(tokenizer),
        vae_scale_factor=told["vae_scale_factor"],
        scaling_factor=OLD_SCALING_FACTOR,
        shift_factor=None,
        paddle=True,
        scheduler_class=class_of(index, "scheduler"),
        pipeline=pipeline_of(index),
        fixed_size=fixed,
    )


def no_encoder(source: Source) -> str | None:
    """Why `export_stage` can make no vae_encoder of this folder's."""
    return "the folder's own gives latents, not what a seed draws them from"


def export_stage(
    stage: Stage, source: Source, folder: Path, wanted: check.Wanted, progress: Progress
) -> None:
    """Write the program of `stage` as folder/model.pdmodel, .pdiparams and .onnx.

    All are compared with the program as it was. ExportError if one computes something else.
    """
    original = source.folder / stage.name / "inference"
    feeds = examples_to_check(stage, source)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        rows = stage.name == "unet"
        with progress.step(f"{stage.name}: run in Paddle as it is"):
            expected = run_apart(FASTDEPLOY, "run_original", original, feeds, rows, log=log)
        with progress.step(f"{stage.name}: name its tensors"):
            run_apart(FASTDEPLOY, "refit", stage, original, folder, log=log)
        with progress.step(f"{stage.name}: compare the Paddle files"):
            outputs = run_apart(RUN, "run_native", folder / "model", feeds, log=log)
            check.require_close(f"{stage.name} in Paddle", check.difference(outputs, expected))
        with progress.step(f"{stage.name}: convert to ONNX"):
            run_apart(CONVERT, "convert", stage, folder, log=log)
    check.finish_stage(stage, folder, feeds, expected, wanted, progress)
