"""The names by which Triton knows a model and its stages.

The model `sd_ensemble` has the stages `tokenizer`, `unet` and so on; a model NAME, exported beside
it, has `NAME.tokenizer`, `NAME.unet`. Clients ask for a model by the name of its ensemble.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from triptych.errors import InvalidRequest

MODEL = "sd_ensemble"
"""The model that is meant where no name is given."""

PATH = (
    *("tokenizer", "text_encoder", "text_encoder_2"),
    *("unet_loop", "vae_decoder", "image_encoder"),
)
"""The stages that an image goes through, in order."""

STAGES = ("unet", "vae_encoder", *PATH)
"""All stages. `unet_loop` calls the first two."""

NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
"""The stages that are networks, with a file of weights each."""

OPTIONAL = ("vae_encoder", "text_encoder_2")
"""Those that not every model has; the second text encoder is SDXL's."""

ADDED = ".added"
"""Where an export writes new models: in the folder of one that is there, else in the repository."""

UNFINISHED = f"{ADDED}/before.json"
"""Is there while the export puts its models in place."""

_STREAM = "_stream"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Names:
    """The names of one model, `model` being its ensemble's."""

    model: str = MODEL

    def stage(self, stage: str) -> str:
        """The served name of one of `STAGES`."""
        return stage if self.model == MODEL else f"{self.model}.{stage}"

    @property
    def stream(self) -> str:
        """The model that shows an image while it is made."""
        return self.model + _STREAM

    @property
    def all(self) -> tuple[str, ...]:
        """Every name that the model can have in a repository: stages, ensemble, stream."""
        return (*map(self.stage, STAGES), self.model, self.stream)

    @property
    def told(self) -> str | None:
        """The model's name as its pictures have it, None for `MODEL`."""
        return None if self.model == MODEL else self.model

    def own(self, default: str) -> str:
        """The name of what `MODEL` has as `default`: a stage, the ensemble or the stream."""
        others = {MODEL: self.model, Names().stream: self.stream}
        return others.get(default) or self.stage(default)

    @classmethod
    def of(cls, served: str) -> Names:
        """The names of the model that `served`, a stage, an ensemble or a stream, belongs to."""
        model, _, stage = served.rpartition(".")
        if served in STAGES:
            return cls()
        if model and stage in STAGES:
            return cls(model)
        return cls(served[: -len(_STREAM)] if served.endswith(_STREAM) else served)


def check_name(name: str) -> None:
    """Raise InvalidRequest unless a model can be exported under this name."""
    if not _NAME.fullmatch(name):
        allowed = "letters, digits, ., _ and -, at most 64, the first and last no sign"
        raise InvalidRequest("name", name, allowed)
    if name in STAGES or Names.of(name).model != name:
        allowed = f"no stage's name, and none that ends in {_STREAM} or . and a stage's name"
        raise InvalidRequest("name", name, allowed)


def models(served: Iterable[str]) -> list[str]:
    """The models whose ensemble and tokenizer are among the names `served`, `MODEL` first."""
    there = set(served)
    ensembles = (name for name in there if Names.of(name).model == name)
    found = [name for name in ensembles if Names(name).stage("tokenizer") in there]
    return sorted(found, key=lambda name: (name != MODEL, name))


def chosen(model: str | None, there: Sequence[str]) -> str:
    """`model`, or where that is None `MODEL` or the first of those that are there.

    InvalidRequest, with the list, for a model that is not there.
    """
    if model is None:
        return MODEL if MODEL in there or not there else there[0]
    if model not in there:
        raise InvalidRequest("model", model, ", ".join(there) or "none: no model is loaded")
    return model
