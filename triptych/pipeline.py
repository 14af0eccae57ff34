"""The whole pipeline in one process, without Triton: what a request asks for in, pictures out.

    from triptych.pipeline import Pipeline

    pipeline = Pipeline("model_repository")
    file = pipeline.draw("a red circle on a blue background")

It reads the model repository that the server serves and gives the same pictures. It needs ONNX
Runtime.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime

from triptych.denoise.conditioning import of_prompts
from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.model_files import ModelFiles
from triptych.picture.encode import encode
from triptych.picture.pixels import to_pixels
from triptych.settings import WIDEST, Settings, parse
from triptych.tokenizer import Tokenizer

LIMITS = dataclasses.replace(WIDEST, min_side=8)
"""What a request may ask for here: there is no operator to set less."""

MAX_ROWS = 32
"""Rows in a call of the UNet at the most."""


class Pipeline:
    """The stages of a model repository as functions, and `draw`, which calls one after another."""

    def __init__(
        self,
        repository: str | Path,
        version: str = "1",
        file: str = "model.onnx",
        provider: str = "CPUExecutionProvider",
    ) -> None:
        """Load the networks' `file` of each stage's `version` under ONNX Runtime's `provider`.

        Raises ModelFileError, naming the file, for numbers or a tokenizer that make no sense, and
        ONNX Runtime's errors for networks that cannot be loaded.
        """
        folder = Path(repository)
        self.model_files = ModelFiles.load(folder / "tokenizer" / version)
        self.tokenizer = Tokenizer(folder / "tokenizer" / version)
        self._networks = {
            name: onnxruntime.InferenceSession(
                str(folder / name / version / file), providers=[provider]
            )
            for name in ("text_encoder", "unet", "vae_decoder")
        }

    def draw(self, *requests: str) -> list[bytes]:
        """The picture's file for each request, a prompt or a JSON object as the server's INPUT_0.

        Raises InvalidRequest for a request that cannot be served.
        """
        settings = [self.settings(request) for request in requests]
        return [encode(*pair) for pair in zip(self.samples(settings), settings)]

    def pixels(self, request: str) -> np.ndarray:
        """The picture for a request, uint8 [height, width, 3]."""
        return to_pixels(*self.samples([self.settings(request)]))

    def settings(self, request: str) -> Settings:
        """What the request asks for, the rest being the model's defaults."""
        return parse(request.encode(), self.model_files.defaults(), LIMITS)

    def samples(self, settings: list[Settings]) -> list[np.ndarray]:
        """The decoded images, float32 [3, height, width] from -1 to 1 each."""
        input_ids, negative_input_ids, _ = self.tokenizer.encode_settings(settings)
        embeds = zip(self.text_encoder(input_ids), self.text_encoder(negative_input_ids))
        images = [
            Denoising(one, *of_prompts(*pair), self.model_files)
            for one, pair in zip(settings, embeds)
        ]
        latents = DenoisingLoop(self.unet, MAX_ROWS).run_to_end(images)
        for failed in latents:
            if isinstance(failed, Exception):
                raise failed
        return [self.vae_decoder(one[np.newaxis])[0] for one in latents]

    def text_encoder(self, input_ids: np.ndarray) -> np.ndarray:
        """Embeddings [prompts, tokens, channels] of int32 tokens [prompts, tokens]."""
        return self._run("text_encoder", input_ids=input_ids)

    def unet(self, sample: np.ndarray, timestep: np.ndarray, conditioning: dict) -> np.ndarray:
        """The model's output [N, channels, h, w] for the loop's CallArguments."""
        return self._run("unet", sample=sample, timestep=timestep, **conditioning)

    def vae_decoder(self, latents: np.ndarray) -> np.ndarray:
        """Decoded images [N, 3, height, width] of scaled latents [N, channels, h, w]."""
        return self._run("vae_decoder", latent_sample=latents)

    def _run(self, network: str, **inputs: np.ndarray) -> np.ndarray:
        return self._networks[network].run(None, inputs)[0]
