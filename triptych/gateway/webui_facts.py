"""What clients of the WebUI ask before they draw: true answers, if short ones."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from triptych.client import Refused
from triptych.errors import shorten
from triptych.gateway.errors import Problem
from triptych.gateway.jobs import caller
from triptych.gateway.keys import CALLER
from triptych.gateway.samplers import LABELS, SCHEDULES
from triptych.gateway.webui_hires import LATENT_MODES, UPSCALERS

MOST_CHOICES = 1000
"""Callers whose choice of a model is known, the newest."""

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


class Upscaler(BaseModel):
    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float = 4


class LatentUpscaleMode(BaseModel):
    name: str


class LoraFile(BaseModel):
    name: str
    alias: str
    path: str
    metadata: dict[str, Any] = {}


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


async def with_checkpoint(requests: list[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
    """`requests` with their model: the first one's own, or the one that was chosen at /options."""
    named = requests[0].get("model")
    field = "override_settings.sd_model_checkpoint" if named else "sd_model_checkpoint"
    model = await _checkpoint(named or _chosen(request), request, field)
    return [{**one, "model": model} for one in requests]


def _chosen(request: Request) -> str | None:
    """The model that the caller has chosen at /options."""
    return request.app.state.checkpoints.get(caller())


async def _checkpoint(name: str | None, request: Request, field: str) -> str:
    """The served model of a name; Problem 400 about `field` if there is none."""
    try:
        return await request.app.state.studio.model(name)
    except Refused as error:
        told = str(error).removeprefix("model: ")
        raise Problem(400, f"{shorten(field)}: {told}", field) from error


@router.get("/sd-models")
async def checkpoints(request: Request) -> list[Checkpoint]:
    """The models that the caller may draw with."""
    there = await request.app.state.studio.models()
    return [Checkpoint(title=name, model_name=name) for name in there]


@router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """The WebUI's options that mean something here: the model alone can be changed."""
    studio = request.app.state.studio
    return {
        "sd_model_checkpoint": _chosen(request) or await studio.model(),
        "samples_format": "png",
        "CLIP_stop_at_last_layers": 1,
    }


@router.post("/options")
async def set_options(given: dict[str, Any], request: Request) -> None:
    """Choose the model of the caller's requests that name none; other options must be as they are.

    Who the caller is, is told as for progress.
    """
    known = await options(request)
    checkpoint = given.get("sd_model_checkpoint")
    if isinstance(checkpoint, str):
        known["sd_model_checkpoint"] = await _checkpoint(checkpoint, request, "sd_model_checkpoint")
        if (own := CALLER.get()) is not None:
            own.check(1, known["sd_model_checkpoint"])
    for name, value in given.items():
        current = known.get(name)
        if value != current or current is None:
            allowed = shorten(current) if current else f"only {', '.join(known)}"
            raise Problem(400, f"{shorten(name)}: got {shorten(value)}; allowed: {allowed}", name)
    if "sd_model_checkpoint" in given:
        chosen = request.app.state.checkpoints
        chosen.pop(caller(), None)
        chosen[caller()] = checkpoint
        if len(chosen) > MOST_CHOICES:
            del chosen[next(iter(chosen))]


@router.post("/refresh-checkpoints")
@router.post("/refresh-vae")
@router.post("/refresh-loras")
def refresh() -> None:
    """Nothing to do: the server is asked each time."""


@router.get("/loras")
async def loras(request: Request) -> list[LoraFile]:
    """What a prompt's <lora:name:scale> can name."""
    studio = request.app.state.studio
    names = await studio.loras(await studio.model(_chosen(request)))
    return [LoraFile(name=name, alias=name, path=f"{name}.safetensors") for name in names]


@router.get("/embeddings")
def embeddings() -> Embeddings:
    """No textual inversions can be named."""
    return Embeddings(loaded={}, skipped={})


@router.get("/scripts")
def scripts() -> Scripts:
    """There are none."""
    return Scripts(txt2img=[], img2img=[])


@router.get("/upscalers")
def upscalers() -> list[Upscaler]:
    """What can make a picture larger between two passes."""
    return [Upscaler(name=name) for name in UPSCALERS]


@router.get("/latent-upscale-modes")
def latent_upscale_modes() -> list[LatentUpscaleMode]:
    """What can make latents larger between two passes."""
    return [LatentUpscaleMode(name=name) for name in LATENT_MODES]


@router.get("/sd-vae")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/prompt-styles")
@router.get("/realesrgan-models")
@router.get("/script-info")
@router.get("/extensions")
def nothing() -> list[dict[str, Any]]:
    """There is none of these."""
    return []
