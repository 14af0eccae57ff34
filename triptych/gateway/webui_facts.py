"""What clients of the WebUI ask before they draw: true answers, if short ones."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from triptych.client import MODEL
from triptych.errors import shorten
from triptych.gateway.errors import Problem
from triptych.gateway.samplers import LABELS, SCHEDULES

router = APIRouter()


class Sampler(BaseModel):
    name: str
    aliases: list[str]
    options: dict[str, str]


class Schedule(BaseModel):
    name: str
    label: str


class Checkpoint(BaseModel):
    title: str
    model_name: str


class Embeddings(BaseModel):
    loaded: dict[str, Any]
    skipped: dict[str, Any]


class Scripts(BaseModel):
    txt2img: list[str]
    img2img: list[str]


@router.get("/samplers")
def samplers() -> list[Sampler]:
    """The schedulers, by the WebUI's names."""
    return [Sampler(name=label, aliases=[own], options={}) for own, label in LABELS.items()]


@router.get("/schedulers")
def schedules() -> list[Schedule]:
    """How sigmas may be spread; not every sampler has all of them."""
    return [Schedule(name=name, label=label) for name, label in SCHEDULES.items()]


@router.get("/sd-models")
def checkpoints() -> list[Checkpoint]:
    """The one model that is served."""
    return [Checkpoint(title=MODEL, model_name=MODEL)]


@router.get("/options")
def options() -> dict[str, Any]:
    """The WebUI's options that mean something here: none of them can be changed."""
    return {"sd_model_checkpoint": MODEL, "samples_format": "png", "CLIP_stop_at_last_layers": 1}


@router.post("/options")
def set_options(given: dict[str, Any]) -> None:
    """Take options that are as they are; any other is refused by name."""
    for name, value in given.items():
        current = options().get(name)
        if value != current or current is None:
            allowed = shorten(current) if current else f"only {', '.join(options())}"
            raise Problem(400, f"{shorten(name)}: got {shorten(value)}; allowed: {allowed}", name)


@router.post("/refresh-checkpoints")
@router.post("/refresh-vae")
@router.post("/refresh-loras")
def refresh() -> None:
    """Nothing to do: what is served does not change while the server runs."""


@router.get("/embeddings")
def embeddings() -> Embeddings:
    """No textual inversions can be named."""
    return Embeddings(loaded={}, skipped={})


@router.get("/scripts")
def scripts() -> Scripts:
    """There are none."""
    return Scripts(txt2img=[], img2img=[])


@router.get("/upscalers")
@router.get("/latent-upscale-modes")
@router.get("/sd-vae")
@router.get("/loras")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/prompt-styles")
@router.get("/realesrgan-models")
@router.get("/script-info")
@router.get("/extensions")
def nothing() -> list[dict[str, Any]]:
    """There is none of these."""
    return []
