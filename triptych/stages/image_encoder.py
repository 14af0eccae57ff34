"""The model image_encoder: a decoded picture and its settings to OUTPUT_0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.errors import Expired
from triptych.picture.encode import encode_base64
from triptych.settings import Settings
from triptych.stages import triton


class ImageEncoderStage:
    """Writes each picture as the file that its settings ask for."""

    def __init__(self, model: triton.Model) -> None:
        self._model = model

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's responses."""
        return self._model.answer(requests, self._encode)

    def _encode(self, inputs: dict[str, np.ndarray], _: object) -> dict[str, np.ndarray]:
        self._model.activity.images(came=inputs["settings"][:, 0])
        settings = [Settings.from_json(text) for text in inputs["settings"][:, 0]]
        if any(one.expired for one in settings):
            raise Expired("timeout: the request's time was over when the picture was decoded")
        brought = inputs.get("pictures", [(b"", b"")] * len(settings))
        pictures = [
            encode_base64(sample, one, *files)
            for sample, one, files in zip(inputs["sample"], settings, brought)
        ]
        return {"OUTPUT_0": triton.strings(pictures)}
