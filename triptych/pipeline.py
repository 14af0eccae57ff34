"""The whole pipeline in one process, without Triton: what a request asks for in, pictures out.

    from triptych.pipeline import Pipeline

    pipeline = Pipeline("model_repository")
    file = pipeline.draw("a red circle on a blue background")

It reads the model repository that the server serves and gives the same pictures. It needs ONNX
Runtime.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from triptych import webui_prompt
from triptych.denoise.conditioning import EMBEDS, Conditioning, of_embeds
from triptych.denoise.deep_cache import DeepCache
from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.start import Start, encoded
from triptych.errors import InvalidRequest
from triptych.fastdeploy.adapted import Adapted
from triptych.fastdeploy.deep_cache import DeepCached
from triptych.fastdeploy.lru import Lru
from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.lora.folder import Adapters, LoraFolder
from triptych.model_files import ModelFiles
from triptych.names import MODEL, NETWORKS, OPTIONAL, Names
from triptych.picture.encode import encode
from triptych.picture.pixels import to_pixels
from triptych.picture.request import Request, read_request
from triptych.settings import WIDEST, Settings
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
        model: str = MODEL,
    ) -> None:
        """Load the networks' `file` of each stage's `version` under ONNX Runtime's `provider`.

        `model`: which one of the repository's. Without `vae_encoder` it takes no pictures.

        Raises ModelFileError, naming the file, for numbers or a tokenizer that make no sense, and
        ONNX Runtime's errors for networks that cannot be loaded.
        """
        folder, names = Path(repository), Names(model)
        self._model = names.told
        tokenizer = folder / names.stage("tokenizer") / version
        self.model_files = ModelFiles.load(tokenizer)
        self.tokenizer = Tokenizer(tokenizer)
        paths = {name: folder / names.stage(name) / version / file for name in NETWORKS}
        self._networks = {
            name: onnxruntime.InferenceSession(str(path), providers=[provider])
            for name, path in paths.items()
            if name not in OPTIONAL or path.exists()
        }
        self._paths, self._provider = paths, provider
        self._loras = LoraFolder.of(paths["unet"].parents[1])
        self._adapted: dict[str, Adapted] = {}
        self._deep_cached: DeepCached | None = None
        self._features = Lru(math.inf)  # of the images of one call of `samples`

    def draw(self, *requests: str) -> list[bytes]:
        """The picture's file for each request, a prompt or a JSON object as the server's INPUT_0.

        Raises InvalidRequest for a request that cannot be served.
        """
        asked = [self.request(request) for request in requests]
        return [encode(sample, *one) for sample, one in zip(self.samples(asked), asked)]

    def pixels(self, request: str) -> np.ndarray:
        """The picture for a request, uint8 [height, width, 3]."""
        asked = self.request(request)
        return to_pixels(*self.samples([asked]))

    def request(self, request: str) -> Request:
        """What the request asks for, the rest being the model's defaults, and warnings."""
        defaults = dataclasses.replace(self.model_files.defaults(), model=self._model)
        takes_pictures = "vae_encoder" in self._networks
        asked = read_request(request.encode(), defaults, LIMITS, takes_pictures=takes_pictures)
        _, (warned,) = self.tokenizer.encode_settings([asked.settings], self.model_files)
        return asked._replace(settings=warned)

    def samples(self, requests: list[Request]) -> list[np.ndarray]:
        """The decoded images, float32 [3, height, width] from -1 to 1 each."""
        images = []
        for one in requests:
            adapters = self._loras.find(webui_prompt.loras_of(one.settings))
            self._loras.changed(adapters, self._networks)
            prompts = self._conditioning(one.settings, adapters)
            start = self._start(one)
            images.append(Denoising(one.settings, *prompts, self.model_files, start, adapters))
        latents = DenoisingLoop(self.unet, MAX_ROWS).run_to_end(images)
        self._features.clear()
        for failed in latents:
            if isinstance(failed, Exception):
                raise failed
        return [self.vae_decoder(one[np.newaxis])[0] for one in latents]

    def _start(self, request: Request) -> Start | None:
        if not request.image:
            return None
        return encoded(*request, self.model_files, self.vae_encoder)

    def _conditioning(
        self, settings: Settings, adapters: Adapters
    ) -> tuple[Conditioning, Conditioning]:
        """What the UNet is conditioned on for the prompt, and for the negative prompt."""
        embeds = dict(zip(EMBEDS, self.embeds(settings, adapters)))
        if self.model_files.is_sdxl:
            tensors, _ = self.tokenizer.encode_settings([settings], self.model_files)
            for prefix in ("", "negative_"):
                inputs = {
                    "input_ids": tensors[f"{prefix}input_ids_2"],
                    "prompt_weights": tensors[f"{prefix}prompt_weights_2"],
                    "clip_skip": tensors[f"{prefix}clip_skip"],
                }
                hidden, pooled = self._run_all("text_encoder_2", adapters, inputs)
                embeds[f"{prefix}prompt_embeds_2"] = hidden[0]
                embeds[f"{prefix}pooled_prompt_embeds"] = pooled[0]
        return of_embeds(embeds, settings, self.model_files)

    def embeds(self, settings: Settings, adapters: Adapters = ()) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings [tokens, channels] of both prompts by `text_encoder`, with LoRAs."""
        tensors, _ = self.tokenizer.encode_settings([settings], self.model_files)
        names = [tensor.name for tensor in self._networks["text_encoder"].get_inputs()]
        prompt, negative = (
            self._run("text_encoder", adapters, **{name: tensors[prefix + name] for name in names})
            for prefix in ("", "negative_")
        )
        return prompt[0], negative[0]

    def unet(
        self,
        sample: np.ndarray,
        timestep: np.ndarray,
        conditioning: Mapping[str, Sequence[np.ndarray]],
        adapters: Adapters = (),
        deep_cache: DeepCache | None = None,
    ) -> np.ndarray:
        """The model's output [N, channels, h, w] for what the loop calls with: see PredictNoise."""
        stacked = {name: np.stack(rows) for name, rows in conditioning.items()}
        inputs = {"sample": sample, "timestep": timestep, **stacked}
        if deep_cache is None:
            return self._run("unet", adapters, **inputs)
        if self._deep_cached is None:

            def start(model: bytes) -> onnxruntime.InferenceSession:
                return onnxruntime.InferenceSession(model, providers=[self._provider])

            self._deep_cached = DeepCached(self._paths["unet"], start)
        return self._deep_cached.run(inputs, deep_cache, self._features)

    def vae_encoder(self, sample: np.ndarray) -> np.ndarray:
        """Moments of latents [N, 2 * channels, h, w] of pictures [N, 3, height, width], -1 to 1."""
        return self._run("vae_encoder", sample=sample)

    def vae_decoder(self, latents: np.ndarray) -> np.ndarray:
        """Decoded images [N, 3, height, width] of scaled latents [N, channels, h, w]."""
        return self._run("vae_decoder", latent_sample=latents)

    def _run(self, network: str, adapters: Adapters = (), **inputs: np.ndarray) -> np.ndarray:
        return self._run_all(network, adapters, inputs)[0]

    def _run_all(
        self, network: str, adapters: Adapters, inputs: dict[str, np.ndarray]
    ) -> list[np.ndarray]:
        found = None
        if adapters:
            parts = {name: [array] for name, array in inputs.items()}
            found = self._with_loras(network).run(adapters, parts, len(next(iter(inputs.values()))))
        return found or self._networks[network].run(None, inputs)

    def _with_loras(self, network: str) -> Adapted:
        if network not in self._adapted:

            def start(model: bytes, _: object) -> Callable:
                session = onnxruntime.InferenceSession(model, providers=[self._provider])

                def run(parts: dict, rows: int, weights: dict) -> list[np.ndarray]:
                    return session.run(
                        None, {**{name: parts[name][0] for name in parts}, **weights}
                    )

                return run

            try:
                graph = OnnxGraph(self._paths[network])
                self._adapted[network] = Adapted(graph, self._loras, start)
            except ValueError as error:
                raise InvalidRequest("loras", network, f"none for this model: {error}") from None
        return self._adapted[network]
