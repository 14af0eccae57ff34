"""The model tokenizer: INPUT_0 to the text encoder's tokens and the settings of the image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych import webui_prompt
from triptych.errors import InvalidRequest
from triptych.ipc import progress
from triptych.model_files import ModelFiles
from triptych.picture.request import Request, read_request
from triptych.stages import loras, triton
from triptych.stages.admission import Admission
from triptych.stages.limits import limits
from triptych.tokenizer import Tokenizer


class TokenizerStage:
    """Reads each request's INPUT_0: its settings, and the tokens of its two prompts."""

    def __init__(self, model: triton.Model) -> None:
        """Raises ValueError, naming the file or parameter, for a model that cannot be served."""
        self._model = model
        self._admission = Admission(model.activity, model.names)
        model_files = ModelFiles.load(model.folder)
        self._limits = limits(model, model_files)
        self._defaults = dataclasses.replace(model_files.defaults(), model=model.names.told)
        self._loras = loras.folder(model)
        self._takes_pictures = bool(model.config_beside("vae_encoder"))
        self._tokenizer = Tokenizer(model.folder)
        self._tokenizer.check_fits(model_files)
        self._model_files = model_files

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's responses.

        With the parameter `list`, `loras`, the output `settings` has their names. With `settings`
        it is what it would be for a picture; none is on its way then, and takes a place.
        """
        for request in requests:
            if triton.trace_context(request) is not None:
                progress.tell_begun(self._model.names.stream, request.request_id())
        return self._model.answer(requests, self._tokenize)

    def _tokenize(
        self, inputs: dict[str, np.ndarray], parameters: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        self._model.activity.check_serving()
        parameters = dict(parameters)
        wanted = parameters.pop("list", None)
        if wanted not in (None, "loras", "settings"):
            raise InvalidRequest("list", wanted, "loras, settings")
        if wanted == "loras":
            return {"settings": triton.strings([json.dumps(self._loras.offered())])}
        texts = inputs["INPUT_0"][:, 0]
        images = [self._read(texts, row, parameters) for row in range(len(texts))]
        self._admission.check(len(images))
        tensors, settings = self._tokenizer.encode_settings(
            [one.settings for one in images], self._model_files, self._limits
        )
        told = triton.strings([one.to_json() for one in settings])
        if wanted is None:
            self._model.activity.images(went=told[:, 0])
        return {
            **tensors,
            "settings": told,
            "pictures": np.array([[one.image, one.mask_image] for one in images], dtype=object),
        }

    def _read(self, texts: Sequence[bytes], row: int, parameters: dict[str, Any]) -> Request:
        """The request in one row; of several, an error says which one it is about."""
        try:
            request = read_request(
                texts[row], self._defaults, self._limits, parameters, self._takes_pictures
            )
            self._loras.find(webui_prompt.loras_of(request.settings))
            return request
        except InvalidRequest as error:
            if len(texts) == 1:
                raise
            allowed = f"{error.allowed} (row {row + 1} of {len(texts)})"
            raise InvalidRequest(error.field, error.value, allowed) from None
