"""Jobs in OpenAI's images API: what begins them, how far they are, and their end."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from triptych.client import Picture
from triptych.errors import shorten
from triptych.gateway.access import require_key
from triptych.gateway.access_log import ENTRY
from triptych.gateway.background import Background, State, Tell, Work
from triptych.gateway.errors import Problem
from triptych.gateway.openai import (
    PREFIX,
    RESPONSES,
    Asked,
    Fault,
    Images,
    answer,
    fault_of,
    images_of,
    requests_of,
    said_of,
)
from triptych.gateway.webhooks import Webhooks


def _background(value: Any) -> Any:
    if not (value is None or isinstance(value, bool) or value in ("auto", "opaque")):
        raise ValueError(f"got {shorten(value)}; allowed: auto, opaque, true, false")
    return value


class InBackground(Asked):
    """A request for pictures that may be a job."""

    background: Annotated[
        Any,
        AfterValidator(_background),
        Field(
            description="true: answer at once, with a job that draws them",
            json_schema_extra={"enum": [None, "auto", "opaque", False, True]},
        ),
    ] = None
    webhook: Annotated[
        str | None,
        Field(max_length=2000, description="With `background` true: told of the job's end"),
    ] = None


class Job(BaseModel):
    """Pictures that are drawn while nobody waits; `result` is the answer that there would be."""

    id: str
    object: str = "image.generation.job"
    created: int
    state: State
    place: int | None = Field(None, description="Among the jobs that wait, 1 for the first")
    step: int = Field(description="UNet calls that are made, of all pictures")
    total: int = Field(description="UNet calls of all pictures, 0 before the first")
    result: Images | None = None
    error: Fault | None = None


OR_JOB: dict[str, Any] = {
    "response_model": Images,
    "response_model_exclude_none": True,
    "responses": {202: {"model": Job, "description": "The job, with `background` true"}},
}
"""How FastAPI is told of an answer that may be a job."""

router = APIRouter(
    prefix=PREFIX, tags=["OpenAI"], dependencies=[Depends(require_key)], responses=RESPONSES
)
short = APIRouter(dependencies=[Depends(require_key)], include_in_schema=False)


async def answer_or_job(
    asked: InBackground, request: Request, more: Mapping[str, Any], names: Mapping[str, str] = {}
) -> Images | Response:
    """`openai.answer`, or with `background` true the job that will have it."""
    tell = _tell(asked, request)
    if asked.background is not True:
        return await answer(asked, request, more, names)
    requests = await requests_of(asked, request, more)
    with said_of(asked, names):
        await request.app.state.studio.check_job(requests)

    async def finish(drawing: Awaitable[list[Picture]]) -> Images:
        with said_of(asked, names):
            return await images_of(asked, request, await drawing)

    background: Background = request.app.state.background
    work = background.begin(requests, finish, tell)
    told = _told(work, background).model_dump_json(exclude_none=True)
    return Response(told, 202, media_type="application/json")


@short.get("/images/generations/{id}", response_model_exclude_none=True)
@router.get("/images/generations/{id}", response_model_exclude_none=True)
async def get_job(id: str, request: Request) -> Job:
    """How far a job is; its result for an hour after its end."""
    background: Background = request.app.state.background
    return _told(background.get(id), background)


@short.delete("/images/generations/{id}", response_model_exclude_none=True)
@router.delete("/images/generations/{id}", response_model_exclude_none=True)
async def cancel_job(id: str, request: Request) -> Job:
    """Give a job up; one that has ended stays as it is."""
    background: Background = request.app.state.background
    work = background.get(id)
    background.cancel(work)
    return _told(work, background)


def _tell(asked: InBackground, request: Request) -> Tell | None:
    """What tells the request's webhook of its job; Problem 400 for one that is not allowed."""
    if asked.webhook is None:
        return None
    webhooks: Webhooks = request.app.state.webhooks
    try:
        if asked.background is not True:
            raise ValueError("none without background true")
        url = webhooks.url(asked.webhook)
    except ValueError as error:
        text = f"webhook: got {shorten(asked.webhook)}; allowed: {error}"
        raise Problem(400, text, "webhook") from error
    ids = ENTRY.get().ids

    async def tell(work: Work) -> None:
        job = _told(work, request.app.state.background).model_copy(update={"result": None})
        body = job.model_dump_json(exclude_none=True)
        await webhooks.post(url, work.id, body, {"key": work.owner, **ids})

    return tell


def _told(work: Work, background: Background) -> Job:
    """What is said of a job."""
    step, total = work.progress()
    return Job(
        id=work.id,
        created=work.created,
        state=work.state,
        place=background.place(work),
        step=step,
        total=total,
        result=work.result,
        error=work.error and fault_of(work.error),
    )
