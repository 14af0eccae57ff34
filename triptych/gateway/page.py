"""The gateway's own page and its API: pictures, with their progress as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException

from triptych.checks import number
from triptych.client import Picture
from triptych.gateway.access import KeyFirst, require_key
from triptych.gateway.errors import responses
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
from triptych.gateway.pictures import in_thread
from triptych.gateway.reading import read
from triptych.gateway.samplers import LABELS
from triptych.gateway.studio import Studio
from triptych.gateway.tabs import Tab, Tabs, Tell, Waiting
from triptych.names import MODEL
from triptych.second_pass import SecondPass
from triptych.streaming import Step

PREFIX = "/api"
PREVIEW_EVERY = 2
PATIENCE = 1.0
"""Seconds without a step after which a picture's place in line is told."""


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


TabName = Annotated[str, Query(min_length=1, max_length=64, description="Any, but no other's")]
Id = Annotated[str, Query(min_length=1, max_length=64, description="The picture's, in its tab")]


class Begun(BaseModel):
    """The answer to a request for a picture."""

    known: bool = Field(description="Whether it was on its way already")


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
        limits=Bounds.model_validate(limits.widened(settings)),
        **about,
    )


_FILE = {"requestBody": {"content": {"image/*": {"schema": {"type": "string"}}}}}


@router.post("/settings", openapi_extra=_FILE)
async def settings_of(request: Request) -> dict[str, Any]:
    """The settings in a picture's file, which is the request's body; the seed as a text."""
    found = (await in_thread(read, await request.body())).settings
    return {**found, "seed": str(found["seed"])} if "seed" in found else found


@router.post("/picture")
async def begin(asked: Asked, tab: TabName, id: Id, request: Request) -> Begun:
    """Begin a picture, which the tab's news tell of from then on.

    One that is on its way under that id goes on. The answer comes with its first step, or when it
    has waited a second for that.
    """
    settings = {name: value for name, value in asked.model_dump().items() if value is not None}
    tabs: Tabs = request.app.state.tabs
    own = tabs.tab(tab)
    known = own.goes_on(id)
    if not known:
        brought = len(asked.image or "") + len(asked.mask_image or "")
        tabs.check_room(brought)
        own.begin(id, partial(_draw, request.app.state.studio, settings), brought)
    await own.first(id)
    return Begun(known=known)


@router.delete("/picture", status_code=204)
async def give_up(tab: TabName, id: Id, request: Request) -> None:
    """Give a picture up, if it is on its way."""
    request.app.state.tabs.tab(tab).cancel(id)


@router.get("/pictures", response_class=StreamingResponse)
async def news(tab: TabName, request: Request) -> StreamingResponse:
    """All pictures that a tab has on their way, as server-sent events, until there is none left.

    For each `step`, many times, with `preview` at some, and, while it is not its turn, `waiting`,
    with its place; the last is `picture` or `error`. They begin with how far each is. Another
    request for the same tab ends them. What nobody reads is given up after ten seconds.
    """
    # A browser reads on for up to 5 s after its page was left, were the connection used again.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"}
    events = _events(request.app.state.tabs.tab(tab))
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def error_response(problem: HTTPException) -> JSONResponse:
    """A Problem as the page reads it."""
    error = Error(message=str(problem.detail), field=getattr(problem, "field", None))
    return JSONResponse(error.model_dump(), problem.status_code, problem.headers)


async def _draw(studio: Studio, settings: dict[str, Any], tell: Tell) -> Picture:
    begun, place = asyncio.get_running_loop().time(), None

    def tell_place() -> None:
        if place is not None:
            tell(Waiting(place))

    def wait(_: int, now: int) -> None:
        nonlocal place
        place = now
        asyncio.get_running_loop().call_at(begun + PATIENCE, tell_place)

    def watch(_: int, step: Step) -> None:
        nonlocal place
        place = None
        tell(step)

    try:
        own = {**settings, "model": await studio.model(settings.get("model"))}
        (drawn,) = await studio.draw([own], watch, PREVIEW_EVERY, wait)
        return drawn
    finally:
        place = None


async def _events(tab: Tab) -> AsyncIterator[str]:
    async with aclosing(tab.read()) as read:
        async for news in read:
            if news is None:
                yield ": nothing new\n\n"
                continue
            id, one = news
            if isinstance(one, Waiting):
                yield _event("waiting", id=id, place=one.place)
            elif isinstance(one, Step):
                told = {"step": one.step, "total": one.total, "preview": _base64(one.preview)}
                yield _event("step", id=id, **told)
            elif isinstance(one, Picture):
                told = {"file": _base64(one.file), "settings": _told(one), "seconds": one.seconds}
                yield _event("picture", id=id, **told)
            else:
                told = {"message": str(one.detail), "field": one.field}
                yield _event("error", id=id, status=one.status_code, **told)


def _told(picture: Picture) -> dict[str, Any]:
    """The settings of a picture, the seed as a text, and its model by name."""
    settings = picture.settings
    return {**told(settings), "seed": str(settings.seed), "model": settings.model or MODEL}


def _event(name: str, **data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _base64(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode() if data else None
