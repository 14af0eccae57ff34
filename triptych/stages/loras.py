"""LoRAs between the stages: the folder, and how a call says which it is to be made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from triptych.errors import InvalidRequest
from triptych.lora import names, request
from triptych.lora.folder import Adapter, Adapters, LoraFolder
from triptych.settings import Settings
from triptych.stages import triton

OUTPUTS = {
    "text_encoder": {"last_hidden_state": "prompt_embeds"},
    "text_encoder_2": {
        "last_hidden_state": "prompt_embeds_2",
        "text_embeds": "pooled_prompt_embeds",
    },
}
"""Of each text encoder, with what unet_loop calls them."""
PARAMETER = "loras"
"""Of a call of a network."""
NOWHERE = "none: the networks of this server are run by a backend that cannot add LoRAs"


def folder(model: triton.Model) -> LoraFolder:
    """The LoRAs of the model that the stage `model` belongs to."""
    return LoraFolder.of(model.folder.parents[1] / model.names.stage("unet"))


def folder_of_network(model: triton.Model) -> LoraFolder | None:
    """The same for a network; None for one that no LoRA changes."""
    changed = [model.names.stage(name) for name in names.NETWORKS]
    return folder(model) if model.name in changed else None


def parameters(adapters: Adapters) -> dict[str, str]:
    """The parameters of a call that is to be made with these adapters."""
    return {PARAMETER: json.dumps(adapters)} if adapters else {}


def asked(given: Mapping[str, Any]) -> Adapters:
    """The adapters in a call's parameters; InvalidRequest if they are not `parameters`' own."""
    if PARAMETER not in given:
        return ()
    try:
        rows = json.loads(given[PARAMETER])
        return tuple(
            Adapter(*request.one(name, scale), str(version)) for name, scale, version in rows
        )
    except (TypeError, ValueError, RecursionError):
        allowed = "a list of [name, scale, version] in JSON, as unet_loop gives it"
        raise InvalidRequest(PARAMETER, given[PARAMETER], allowed) from None


class TextEncoders:
    """The text encoders of the model that the stage `model` belongs to."""

    def __init__(self, model: triton.Model) -> None:
        inputs = {name: model.config_beside(name).get("input", ()) for name in OUTPUTS}
        self._names = model.names
        self._takes = {
            name: [one["name"][-1] for one in found] for name, found in inputs.items() if found
        }

    def embeds(
        self, settings: Settings, adapters: Adapters, loras: LoraFolder
    ) -> dict[str, np.ndarray]:
        """What those that the files change give for both prompts, under unet_loop's own names.

        Nothing for settings that do not come from the tokenizer. InvalidRequest for a file that
        changes an encoder which the model does not have.
        """
        told, found = settings.text_inputs, {}
        if told is None:
            return found
        for network in sorted(loras.changed(adapters, ("unet", *self._takes)) - {"unet"}):
            inputs = _inputs(told, self._takes[network], network)
            gives, served = OUTPUTS[network], self._names.stage(network)
            more = parameters(adapters)
            try:
                outputs = triton.call_all(served, inputs, list(gives), parameters=more)
            except TypeError:  # this Triton's requests have no parameters
                raise InvalidRequest(PARAMETER, adapters[0].name, NOWHERE) from None
            for name, (prompt, negative) in zip(gives.values(), outputs):
                found.update({name: prompt, f"negative_{name}": negative})
        return found


def _inputs(told: Mapping[str, Any], takes: list[str], network: str) -> dict[str, np.ndarray]:
    """A text encoder's inputs for both prompts, out of what the tokenizer told."""
    ending = "_2" if network == "text_encoder_2" else ""
    kinds, found = {"prompt_weights": np.float32}, {}
    try:
        for name in takes:
            own = name if name == "clip_skip" else name + ending
            rows = [told[own], told[f"negative_{own}"]]
            found[name] = np.array(rows, kinds.get(name, np.int32))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidRequest("text_inputs", dict(told), "what the tokenizer gives") from None
    return found
