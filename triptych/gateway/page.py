"""The gateway's own page and its API: a picture with its progress as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException

from triptych.checks import number
from triptych.client import ClientError, Picture
from triptych.gateway.access import KeyFirst, require_key
from triptych.gateway.errors import Problem, problem, responses
from triptych.gateway.fields import (
    ClipSkip,
    Eta,
    Guidance,
    Loras,
    Negative,
    Ours,
    Prompt,
    Rescale,
    Scheduler,
    Seed,
    Side,
    Spacing,
    Steps,
    Strength,
    Syntax,
    told,
)
from triptych.gateway.gone import unless_gone
from triptych.gateway.reading import read
from triptych.gateway.samplers import LABELS
from triptych.names import MODEL
from triptych.second_pass import SecondPass
from triptych.streaming import Step

PREFIX = "/api"
PREVIEW_EVERY = 2
PATIENCE = 1.0
"""Seconds without a step after which a picture's place in line is told."""


@dataclass(frozen=True)
class Waiting:
    """A picture waits for its first step; `place` is 1 if it is the next in turn."""

    place: int


News = Step | Waiting | Picture | Problem


class Error(BaseModel):
    """What went wrong, and the field that is at fault, if one is."""

    message: str
    field: str | None


SeedSaid = Seed | Annotated[str, Field(pattern="^[0-9]{1,20}$")]


class Asked(Ours):
    """A request for one picture. The seed may be a text: JavaScript's numbers end at 2**53."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    model: str | None = None
    negative_prompt: Negative = ""
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    scheduler: Scheduler | None = None
    timestep_spacing: Spacing | None = None
    eta: Eta | None = None
    prompt_syntax: Syntax | None = None
    clip_skip: ClipSkip | None = None
    guidance_rescale: Rescale | None = None
    loras: Loras | None = None
    seed: Annotated[Seed, BeforeValidator(number, json_schema_input_type=SeedSaid)] | None = None
    output_format: Literal["png", "jpeg", "webp"] = "png"
    image: str | None = Field(None, description="To start from: base64 or a data: address")
    strength: Strength | None = None
    mask_image: str | None = Field(None, description="White is painted anew")
    second_pass: dict[str, Any] | None = Field(
        None, description=f"Drawn once more, larger: {', '.join(SecondPass._fields)}"
    )


class Models(BaseModel):
    """The models that are served, the one that is meant by none first."""

    models: list[str]
    titles: dict[str, str] = Field(description="Their names for people, of those that have one")


class Bounds(BaseModel):
    """The most that a request may ask for, as its server's operator set it."""

    model_config = ConfigDict(from_attributes=True)

    max_num_inference_steps: int
    max_guidance_scale: float
    max_pixels: int = Field(description="Width times height")
    max_picture_bytes: int = Field(description="Of a picture to start from")
    max_picture_pixels: int
    max_width: int
    max_height: int
    min_side: int = Field(description="The least width and height")
    max_prompt_bytes: int


class Usual(BaseModel):
    """A model's default settings, its limits, what it draws, and the schedulers to choose from."""

    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str
    takes_pictures: bool = Field(description="Whether drawing can start from a picture")
    takes_prompt_2: bool = Field(description="Whether a second text encoder reads its own prompt")
    schedulers: dict[str, str] = Field(description="Each with its name for people")
    limits: Bounds
    title: str = Field(description="The model's name for people, empty if it has none")
    about: str = Field(description="What it can draw, empty if it does not say")
    has_samples: bool = Field(description="Whether the page's sample pictures are of this model")


RESPONSES = responses(Error)
router = APIRouter(
    prefix=PREFIX,
    tags=["Page"],
    route_class=KeyFirst,
    dependencies=[Depends(require_key)],
    responses=RESPONSES,
)


@router.get("/models")
async def models(request: Request) -> Models:
    """What the caller can draw with."""
    studio = request.app.state.studio
    names = await studio.models()
    about = await asyncio.gather(*(studio.about(name) for name in names))
    titles = {name: one["title"] for name, one in zip(names, about) if one["title"]}
    return Models(models=names, titles=titles)


@router.get("/loras")
async def loras(request: Request, model: str | None = None) -> list[str]:
    """The LoRAs that a model can be drawn with, by name."""
    studio = request.app.state.studio
    return await studio.loras(await studio.model(model or None))


@router.get("/usual")
async def usual(request: Request, model: str | None = None) -> Usual:
    """The settings of a request that names nothing but its prompt, and maybe a model."""
    studio = request.app.state.studio
    model = await studio.model(model or None)
    settings, takes_pictures, takes_prompt_2, limits, about = await asyncio.gather(
        studio.ask(studio.client.settings_of, "x", model),
        studio.takes_pictures(model),
        studio.takes_prompt_2(model),
        studio.limits(model),
        studio.about(model),
    )
    names = ("num_inference_steps", "guidance_scale", "width", "height", "scheduler")
    values = {name: getattr(settings, name) for name in names}
    return Usual(
        **values,
        takes_pictures=takes_pictures,
        takes_prompt_2=takes_prompt_2,
        schedulers=LABELS,
        limits=Bounds.model_validate(limits),
        **about,
    )


_FILE = {"requestBody": {"content": {"image/*": {"schema": {"type": "string"}}}}}


@router.post("/settings", openapi_extra=_FILE)
async def settings_of(request: Request) -> dict[str, Any]:
    """The settings in a picture's file, which is the request's body; the seed as a text."""
    found = read(await request.body()).settings
    return {**found, "seed": str(found["seed"])} if "seed" in found else found


@router.post("/picture", response_class=StreamingResponse)
async def picture(asked: Asked, request: Request) -> StreamingResponse:
    """One picture, as server-sent events, of which the last is `picture` or `error`.

    Before it come `step`, many times, and, while it is not its turn, `waiting`, with its place.
    """
    settings = {name: value for name, value in asked.model_dump().items() if value is not None}
    news: asyncio.Queue[News] = asyncio.Queue()
    drawing = asyncio.ensure_future(_draw(request, settings, news))
    try:
        first = await unless_gone(request, news.get())
    except Problem:
        drawing.cancel()
        raise
    if isinstance(first, Problem):
        raise first
    # A browser reads on for up to 5 s after a cancel, where it may use the connection again.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"}
    events = _events(first, news, drawing)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def error_response(problem: HTTPException) -> JSONResponse:
    """A Problem as the page reads it."""
    error = Error(message=str(problem.detail), field=getattr(problem, "field", None))
    return JSONResponse(error.model_dump(), problem.status_code, problem.headers)


async def _draw(request: Request, settings: dict[str, Any], news: asyncio.Queue) -> None:
    begun, place = asyncio.get_running_loop().time(), None

    def tell_place() -> None:
        if place is not None:
            news.put_nowait(Waiting(place))

    def wait(_: int, now: int) -> None:
        nonlocal place
        place = now
        asyncio.get_running_loop().call_at(begun + PATIENCE, tell_place)

    def watch(_: int, step: Step) -> None:
        nonlocal place
        place = None
        news.put_nowait(step)

    studio = request.app.state.studio
    try:
        own = {**settings, "model": await studio.model(settings.get("model"))}
        (drawn,) = await studio.draw([own], watch, PREVIEW_EVERY, wait)
        news.put_nowait(drawn)
    except ClientError as error:
        news.put_nowait(problem(error))
    finally:
        place = None


async def _events(first: News, news: asyncio.Queue, drawing: asyncio.Future) -> AsyncIterator[str]:
    """Server-sent events from `first` on; the picture is cancelled if the reader leaves."""
    try:
        one = first
        while isinstance(one, (Step, Waiting)):
            if isinstance(one, Waiting):
                yield _event("waiting", place=one.place)
            else:
                yield _event("step", step=one.step, total=one.total, preview=_base64(one.preview))
            one = await news.get()
        if isinstance(one, Problem):
            error = {"message": str(one.detail), "field": one.field, "status": one.status_code}
            yield _event("error", **error)
        else:
            settings = _told(one)
            yield _event("picture", file=_base64(one.file), settings=settings, seconds=one.seconds)
    finally:
        drawing.cancel()


def _told(picture: Picture) -> dict[str, Any]:
    """The settings of a picture, the seed as a text, and its model by name."""
    settings = picture.settings
    return {**told(settings), "seed": str(settings.seed), "model": settings.model or MODEL}


def _event(name: str, **data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _base64(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode() if data else None
