"""A small picture of what latents are becoming, without the VAE: latents to colours, linearly.

`python -m triptych.denoise.preview model_repository` fits the colours to the repository's
vae_decoder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triptych.model_files import ModelFiles
from triptych.names import MODEL, Names
from triptych.picture.pixels import to_pixels
from triptych.schedulers import tables
from triptych.schedulers.config import NOISE_LEVELS, flag, one_of, read

_OPTIONS = {
    **NOISE_LEVELS,
    "rescale_betas_zero_snr": flag(False),
    "prediction_type": one_of("epsilon", "v_prediction", "sample"),
}


class Preview:
    """The picture that the UNet expects at a step: its prediction of x_0, in colours."""

    def __init__(self, model_files: ModelFiles) -> None:
        """`model_files.latent_rgb` says which colours; ValueError without it."""
        if model_files.latent_rgb is None:
            raise ValueError(
                "pipeline.json has no latent_rgb: run python -m triptych.denoise.preview"
            )
        values = read(model_files.scheduler_config, _OPTIONS, "preview")
        self._prediction_type = values["prediction_type"]
        # No signal at all is left at the last timestep of some schedules.
        self._signal = np.maximum(tables.alphas_cumprod(values), 1e-8)
        *factors, bias = np.array(model_files.latent_rgb, np.float32)
        self._factors, self._bias = np.stack(factors), bias[:, None, None]

    def pixels(
        self, model_input: np.ndarray, timestep: float, model_output: np.ndarray
    ) -> np.ndarray:
        """uint8 [h, w, 3], a pixel for each latent.

        `model_input` and `model_output`, [channels, h, w], are what the UNet was given at
        `timestep`, which has variance 1 with every scheduler, and what it gave, after guidance.
        """
        signal = np.interp(timestep, np.arange(len(self._signal)), self._signal)
        alpha, sigma = np.sqrt([signal]), np.sqrt([1 - signal])
        (weights,) = tables.x0_weights(self._prediction_type, alpha, sigma).astype(np.float32)
        x0 = tables.weighted_sum(weights, (model_input, model_output))
        return to_pixels(np.tensordot(self._factors.T, x0, 1) + self._bias)


def fit(
    decode: Callable[[np.ndarray], np.ndarray],
    model_files: ModelFiles,
    size: tuple[int, int] = (32, 32),
    count: int = 8,
) -> list[list[float]]:
    """`latent_rgb` of a VAE: a row of three colours a latent channel, and one to add.

    The least squares of what `decode`, the served vae_decoder's function, [N, channels, h, w] to
    [N, 3, height, width], makes of `count` latents of `size`: random colour patches, of the
    variance that latents have, large enough for the decoder to make a plain colour of each.
    """
    random = np.random.RandomState(0)
    channels, factor = model_files.latent_channels, model_files.vae_scale_factor
    patches = random.standard_normal((count, channels, 4, 4)).astype(np.float32)
    down, across = (np.arange(side) * 4 // side for side in size)
    rows, colours = [], []
    for one in patches[:, :, down][:, :, :, across]:
        scaled = one[None] / np.float32(model_files.scaling_factor) + np.float32(
            model_files.shift_factor
        )
        picture = np.clip(decode(scaled)[0], -1, 1)
        pixels = picture.reshape(3, size[0], factor, size[1], factor).mean(axis=(2, 4))
        rows.append(np.vstack([one.reshape(channels, -1), np.ones((1, size[0] * size[1]))]).T)
        colours.append(pixels.reshape(3, -1).T)
    solution = np.linalg.lstsq(np.concatenate(rows), np.concatenate(colours), rcond=None)[0]
    return [[round(float(value), 5) for value in row] for row in solution]


def fit_network(
    path: Path, model_files: ModelFiles, size: tuple[int, int] = (32, 32)
) -> list[list[float]]:
    """`fit` for a vae_decoder's model.onnx."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def decode(latents: np.ndarray) -> np.ndarray:
        return session.run(["sample"], {"latent_sample": latents})[0]

    return fit(decode, model_files, size)


def main(repository: Path, model: str = MODEL) -> None:
    """Write `latent_rgb` into the pipeline.json of the unet_loop of one of the models."""
    loop, decoder = (
        repository / Names(model).stage(stage) / "1" for stage in ("unet_loop", "vae_decoder")
    )
    model_files = ModelFiles.load(loop)
    found = fit_network(decoder / "model.onnx", model_files)
    path = loop / "pipeline.json"
    numbers = {**json.loads(path.read_text(encoding="utf-8")), "latent_rgb": found}
    path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
