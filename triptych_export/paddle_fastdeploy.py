"""Networks exported for FastDeploy: read, run and refitted. Runs in Paddle's environment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from triptych_export import paddle_program
from triptych_export.paddle_run import predictor, run_once
from triptych_export.stages import Stage

NUMPY_TYPES = {
    paddle_program.INT32: np.int32,
    paddle_program.INT64: np.int64,
    paddle_program.FLOAT32: np.float32,
}


def describe(folder: Path) -> dict:
    """What the UNet's and the VAE's programs tell of the model.

    sample: the dimensions of the UNet's latents, -1 where any size will do. hidden_size: width of
    the text embeddings. vae_scale_factor: pixels to one latent. whole_timesteps: whether the UNet
    takes integers only.
    """
    unet = paddle_program.read(folder / "unet" / "inference.pdmodel")
    sample, timestep, embeddings = paddle_program.inputs(unet)
    dims = paddle_program.shape(unet, sample)
    decoder = paddle_program.read(folder / "vae_decoder" / "inference.pdmodel")
    latents = paddle_program.shape(decoder, paddle_program.inputs(decoder)[0])
    latents = [size if size > 0 else default for size, default in zip(latents, (1, 4, 8, 8))]
    call = {"latents": np.zeros(latents, np.float32)}
    picture = run_original(folder / "vae_decoder" / "inference", [call], rows=False)[0]
    return {
        "sample": dims,
        "hidden_size": paddle_program.shape(unet, embeddings)[-1],
        "vae_scale_factor": picture.shape[2] // latents[2],
        "whole_timesteps": paddle_program.data_type(unet, timestep) != paddle_program.FLOAT32,
    }


def run_original(model: Path, feeds: list[dict], rows: bool) -> list[np.ndarray]:
    """The first output of the program as it was exported, for each of `feeds`.

    Inputs go by order and in the program's own types. rows: run each row of a batch alone, as is
    due where the program has one timestep for all rows.
    """
    program = paddle_program.read(model.with_suffix(".pdmodel"))
    names = paddle_program.inputs(program)
    types = [NUMPY_TYPES[paddle_program.data_type(program, name)] for name in names]
    engine = predictor(model)
    results = []
    for call in feeds:
        values = [value.astype(kind) for value, kind in zip(call.values(), types)]
        count = len(values[0]) if rows else 1
        parts = [np.array_split(value, count) for value in values]
        outputs = [run_once(engine, dict(zip(names, part))) for part in zip(*parts)]
        results.append(np.concatenate(outputs))
    return results


def refit(stage: Stage, model: Path, folder: Path) -> None:
    """Write folder/model.pdmodel and .pdiparams: `model` with the tensors of `stage`."""
    program = paddle_program.read(model.with_suffix(".pdmodel"))
    paddle_program.fit_to_stage(program, stage)
    paddle_program.group_norm_in_four_dimensions(program)
    paddle_program.write(program, folder / "model.pdmodel")
    shutil.copyfile(model.with_suffix(".pdiparams"), folder / "model.pdiparams")
