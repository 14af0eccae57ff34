"""A picture drawn by exported networks without a server, and how much two pictures differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.model_files import ModelFiles
from triptych.picture.pixels import to_pixels
from triptych.settings import Limits, parse
from triptych.tokenizer import Tokenizer

LIMITS = Limits(max_pixels=4096 * 4096)


def draw(
    folders: dict[str, Path], files: dict[str, str], request: bytes, provider: str
) -> np.ndarray:
    """The picture that `request`, an INPUT_0, asks for: uint8 [height, width, 3].

    folders: version folders of tokenizer, text_encoder, unet and vae_decoder. files: the networks'
    files in them, `model.onnx` where none is named.
    """

    def run(stage: str, feeds: dict) -> np.ndarray:
        return sessions[stage].run(None, feeds)[0]

    def predict_noise(sample, timestep, encoder_hidden_states):
        feeds = {"sample": sample, "timestep": timestep}
        return run("unet", {**feeds, "encoder_hidden_states": encoder_hidden_states})

    sessions = {
        stage: onnxruntime.InferenceSession(
            str(folders[stage] / files.get(stage, "model.onnx")), providers=[provider]
        )
        for stage in ("text_encoder", "unet", "vae_decoder")
    }
    model_files = ModelFiles.load(folders["tokenizer"])
    settings = parse(request, model_files.defaults(), LIMITS)
    tokens, _ = Tokenizer(folders["tokenizer"]).encode([settings.prompt, settings.negative_prompt])
    prompt, negative = run("text_encoder", {"input_ids": tokens})
    image = Denoising(settings, prompt, negative, model_files)
    (latents,) = DenoisingLoop(predict_noise, max_rows=2).run_to_end([image])
    if isinstance(latents, Exception):
        raise latents
    return to_pixels(run("vae_decoder", {"latent_sample": latents[None]})[0])


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in decibels; infinite if they are equal."""
    error = np.mean((picture.astype(np.float64) - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
