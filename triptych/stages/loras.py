"""LoRAs between the stages: the folder, and how a call says which it is to be made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from triptych.errors import InvalidRequest
from triptych.lora.folder import Adapter, Adapters, LoraFolder
from triptych.settings import Settings
from triptych.stages import triton

PARAMETER = "loras"
"""Of a call of a network."""
NOWHERE = "none: the networks of this server are run by a backend that cannot add LoRAs"


def folder(model: triton.Model) -> LoraFolder:
    """The LoRAs of the model that the stage `model` belongs to."""
    return LoraFolder.of(model.folder.parents[1] / model.names.stage("unet"))


def folder_of_network(model: triton.Model) -> LoraFolder | None:
    """The same for a network; None for one that no LoRA changes."""
    changed = [model.names.stage(name) for name in ("unet", "text_encoder")]
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
            Adapter(str(name), float(scale), str(version)) for name, scale, version in rows
        )
    except (TypeError, ValueError, RecursionError):
        allowed = "a list of [name, scale, version] in JSON, as unet_loop gives it"
        raise InvalidRequest(PARAMETER, given[PARAMETER], allowed) from None


def embeds(
    settings: Settings, adapters: Adapters, loras: LoraFolder, text_encoder: str, takes: list[str]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The embeddings of both prompts by a text encoder with LoRAs, [tokens, channels] each.

    `text_encoder` is the served name, `takes` are the names of the inputs. None where no file
    changes the text encoder, and for settings that do not come from the tokenizer.
    """
    told = settings.text_inputs
    if told is None or not any("text_encoder" in loras.networks(one) for one in adapters):
        return None
    kinds = {"prompt_weights": np.float32}
    try:
        inputs = {
            name: np.array([told[name], told[f"negative_{name}"]], kinds.get(name, np.int32))
            for name in takes
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidRequest("text_inputs", dict(told), "what the tokenizer gives") from None
    try:
        found = triton.call(
            text_encoder, inputs, "last_hidden_state", parameters=parameters(adapters)
        )
    except TypeError:  # this Triton's requests have no parameters
        raise InvalidRequest(PARAMETER, adapters[0].name, NOWHERE) from None
    return found[0], found[1]
