"""OpenAI's images API: https://platform.openai.com/docs/api-reference/images/create.

The model's own settings may stand beside OpenAI's fields: with the `openai` package they go into
`extra_body`.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from triptych.client import Picture, Refused
from triptych.errors import shorten
from triptych.gateway.access import require_key
from triptych.gateway.errors import Problem, problem, renamed, responses
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
    Spacing,
    Steps,
    Syntax,
    matching,
    only,
    size_of,
    told,
    whole,
)
from triptych.gateway.gone import unless_gone
from triptych.gateway.keys import CALLER, TooMany
from triptych.names import chosen
from triptych.settings import Settings, seeds

PREFIX = "/v1"
SIZE = "^(auto|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$"
MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


class Fault(BaseModel):
    """What is inside of OpenAI's errors."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """The shape of OpenAI's errors."""

    error: Fault


Words = Annotated[Prompt, *matching(r"\S", "a text that is not blank")]


class Asked(Ours):
    """What every request for pictures may say."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="One of /v1/models, or nothing")
    n: whole(1, 10) | None = 1
    size: Annotated[str, *matching(SIZE, "WIDTHxHEIGHT in pixels, or auto")] | None = "auto"
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="Without it url for a model of dall-e's name, else b64_json"
    )
    output_format: Literal["png", "jpeg", "webp"] | None = "png"
    user: str | None = Field(None, description="Not used")
    quality: str | None = Field(None, description="Not used: say num_inference_steps")
    style: only(None, "vivid") = None
    background: only(None, "auto", "opaque") = None
    moderation: only(None, "auto", "low") = None
    output_compression: only(None, 100) = None
    partial_images: only(None, 0) = None
    stream: only(None, False) = None
    negative_prompt: Negative | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Scheduler | None = None
    timestep_spacing: Spacing | None = None
    eta: Eta | None = None
    prompt_syntax: Syntax | None = None
    clip_skip: ClipSkip | None = None
    guidance_rescale: Rescale | None = None
    loras: Loras | None = None
    seed: Seed | None = Field(None, description="The first picture's; the next ones have the next")


class Image(BaseModel):
    """One picture, as base64 or by its address, and what it was made with."""

    b64_json: str | None = None
    url: str | None = None
    settings: dict[str, Any]


class Images(BaseModel):
    """The answer to a request for pictures."""

    created: int
    data: list[Image]
    output_format: str


class Model(BaseModel):
    """What is drawn with."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "triptych"
    loras: list[str] = Field(description="What `loras` of a request can name")


class Models(BaseModel):
    """All there is to draw with."""

    object: Literal["list"] = "list"
    data: list[Model]


RESPONSES = responses(Error)
router = APIRouter(
    prefix=PREFIX, tags=["OpenAI"], dependencies=[Depends(require_key)], responses=RESPONSES
)
files = APIRouter(tags=["OpenAI"], responses={status: RESPONSES[status] for status in (404, 503)})


@router.get("/models")
async def list_models(request: Request) -> Models:
    """The models that the caller may draw with, under each of their names."""
    state = request.app.state
    there = await state.studio.models()
    loras = dict(zip(there, await asyncio.gather(*map(state.studio.loras, there))))
    names = _names(there, request).items()
    return Models(
        data=[Model(id=name, created=state.started, loras=loras[model]) for name, model in names]
    )


@router.get("/models/{model}")
async def get_model(model: str, request: Request) -> Model:
    """The model of that name; 403 for one that the key does not allow."""
    state, served = request.app.state, await _model(model, request)
    if (caller := CALLER.get()) is not None:
        caller.check(1, served)
    return Model(id=model, created=state.started, loras=await state.studio.loras(served))


@files.get("/images/{name}", response_class=Response)
def get_image(name: str, request: Request, signature: str = "") -> Response:
    """A picture that was asked for by url, at the address that was given for it: for an hour."""
    kept = request.app.state.kept.get(name, signature)
    if kept is None:
        raise Problem(404, "no picture at this address: it is wrong, or older than an hour")
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(kept, media_type=MEDIA[name.rpartition(".")[2]], headers=headers)


def error_response(problem: HTTPException) -> JSONResponse:
    """A Problem in the shape of OpenAI's errors."""
    error = Error(error=fault_of(problem))
    return JSONResponse(error.model_dump(), problem.status_code, problem.headers)


def fault_of(problem: HTTPException) -> Fault:
    """A Problem as OpenAI's errors have it inside."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    codes = {
        401: "invalid_api_key",
        403: "model_not_allowed",
        404: "not_found",
        429: "rate_limit_exceeded",
    }
    status = problem.status_code
    return Fault(
        message=str(problem.detail),
        type=kinds.get(status, "invalid_request_error" if status < 500 else "server_error"),
        param=getattr(problem, "field", None),
        code=codes.get(status),
    )


async def answer(
    asked: Asked, request: Request, more: Mapping[str, Any], names: Mapping[str, str] = {}
) -> Images:
    """Draw what was asked, with `more` settings of every picture.

    names: the API's names of fields by the server's, for its errors. Raises a Problem.
    """
    requests = await requests_of(asked, request, more)
    with said_of(asked, names):
        pictures = await unless_gone(request, request.app.state.studio.draw(requests))
    return await asyncio.to_thread(images_of, asked, request, pictures)


@contextmanager
def said_of(asked: Asked, names: Mapping[str, str] = {}) -> Iterator[None]:
    """Raise what the studio says of the request's fields as a Problem with OpenAI's names."""
    try:
        yield
    except TooMany as error:
        raise Problem(400, f"n: got {asked.n}; allowed: {error.allowed}", "n") from error
    except Refused as error:
        raise renamed(_of_size(problem(error), asked.size), names) from error


def images_of(asked: Asked, request: Request, pictures: Sequence[Picture]) -> Images:
    """The answer with these pictures, in the form that was asked for; it may write files."""
    usual = "url" if is_dall_e(asked) else "b64_json"
    by_url = (asked.response_format or usual) == "url"
    return Images(
        created=int(time.time()),
        data=[_image(picture, request if by_url else None) for picture in pictures],
        output_format=pictures[0].settings.output_format,
    )


def is_dall_e(asked: Asked) -> bool:
    """Whether the request is for a model of dall-e's name, which has customs of its own."""
    return (asked.model or "").startswith("dall-e")


async def _model(name: str | None, request: Request) -> str:
    """The served model that is meant by a name; Problem 404 for a name of none."""
    state = request.app.state
    try:
        return await state.studio.model(state.aliases.get(name, name))
    except Refused as error:
        names = _names(await state.studio.models(), request)
        there = f"there is {', '.join(names)}; other names by --model-alias"
        raise Problem(404, f"there is no model {shorten(name)}; {there}", "model") from error


def _names(there: Sequence[str], request: Request) -> dict[str, str]:
    """All names of the models that are there, each with its model."""
    usual = chosen(None, there)
    aliases = {name: model or usual for name, model in request.app.state.aliases.items()}
    names = {**{name: name for name in there}, **aliases}
    return {name: model for name, model in names.items() if model in there}


def _of_size(refused: Problem, size: str | None) -> Problem:
    """The server's problem with a side, said of OpenAI's field that has both."""
    if refused.field not in ("width", "height"):
        return refused
    allowed = str(refused.detail).partition("; allowed: ")[2]
    side = f"WIDTHxHEIGHT; {refused.field}: {allowed}"
    return Problem(400, f"size: got {size!r}; allowed: {side}", "size")


async def requests_of(
    asked: Asked, request: Request, more: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What the studio is to be asked for each picture; Problem 404 for a model that is none."""
    more = {**more, "model": await _model(asked.model, request)}
    names = {field.name for field in dataclasses.fields(Settings)} & set(Asked.model_fields)
    common = asked.model_dump(include=names - {"model", "seed"})
    common.update(size_of(asked.size), **more)
    common = {name: value for name, value in common.items() if value is not None}
    count = asked.n or 1
    if asked.seed is None:
        return [common] * count
    return [{**common, "seed": seed} for seed in seeds(asked.seed, count)]


def _image(picture: Picture, by_url: Request | None) -> Image:
    settings = told(picture.settings)
    if by_url is None:
        return Image(b64_json=base64.b64encode(picture.file).decode(), settings=settings)
    address = by_url.app.state.kept.put(picture.file, picture.settings.output_format)
    base = by_url.app.state.public_url or by_url.base_url
    return Image(url=f"{base}images/{address}", settings=settings)
