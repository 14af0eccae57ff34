"""The same work in one process: tokenizer, networks, schedulers and pictures, no server.

ONNX Runtime as it comes, one request at a time or a batch of equal ones together.
As a script, `python benchmarks/monolithic.py REPOSITORY` is a worker of benchmarks/cpu.py.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.worker import serve, timed
from triptych.denoise.denoising import Denoising
from triptych.model_files import ModelFiles
from triptych.picture.encode import encode_base64
from triptych.settings import Limits, parse
from triptych.tokenizer import Tokenizer


class Monolith:
    """The stages of a model repository, called as functions."""

    def __init__(self, repository: Path) -> None:
        self._model_files = ModelFiles.load(repository / "tokenizer" / "1")
        self._tokenizer = Tokenizer(repository / "tokenizer" / "1")
        self._text_encoder, self._unet, self._vae_decoder = (
            onnxruntime.InferenceSession(str(repository / name / "1" / "model.onnx"))
            for name in ("text_encoder", "unet", "vae_decoder")
        )

    def pictures(self, requests: list[str]) -> list[bytes]:
        """OUTPUT_0 for each INPUT_0; they have one size, step count and scheduler, and guidance."""
        defaults = self._model_files.defaults()
        settings = [parse(request.encode(), defaults, Limits()) for request in requests]
        input_ids, negative_ids, settings = self._tokenizer.encode_settings(settings)
        prompts = self._run(self._text_encoder, input_ids=np.concatenate([negative_ids, input_ids]))
        count = len(requests)
        images = [
            Denoising(one, prompts[count + row], prompts[row], self._model_files)
            for row, one in enumerate(settings)
        ]
        encoder_hidden_states = np.stack([row for one in images for row in one.embeds])
        while not images[0].finished:
            inputs = [one.model_input() for one in images for _ in range(one.rows)]
            noise = self._run(
                self._unet,
                sample=np.stack(inputs),
                timestep=np.full(len(inputs), images[0].timestep),
                encoder_hidden_states=encoder_hidden_states,
            )
            for one, rows in zip(images, np.split(noise, count)):
                one.advance(rows)
        latents = np.stack([one.result() for one in images])
        samples = self._run(self._vae_decoder, latent_sample=latents)
        return [encode_base64(*pair) for pair in zip(samples, settings)]

    def unet_seconds(self, rows: int, runs: int) -> list[float]:
        """How long each of `runs` runs of the UNet alone takes, with that many rows."""
        shape = self._model_files.latent_shape(self._model_files.height, self._model_files.width)
        width = self._unet.get_inputs()[2].shape[2]
        feeds = {
            "sample": np.ones((rows, *shape), np.float32),
            "timestep": np.ones(rows, np.float32),
            "encoder_hidden_states": np.ones((rows, self._tokenizer.length, width), np.float32),
        }
        return [timed(self._run, self._unet, **feeds) for _ in range(runs)]

    @staticmethod
    def _run(session, **feeds: np.ndarray) -> np.ndarray:
        return session.run(None, feeds)[0]


if __name__ == "__main__":
    monolith = Monolith(Path(sys.argv[1]))
    serve(
        pictures=lambda requests: timed(monolith.pictures, requests),
        digest=lambda request: hashlib.sha256(*monolith.pictures([request])).hexdigest(),
        unet_seconds=monolith.unet_seconds,
    )
