"""The API of the Stable Diffusion WebUI, as much as its clients use to draw from a text.

Its names and shapes; what a request leaves out is the served model's own default, not the WebUI's.
What would change the picture and cannot be done here is refused, the rest is ignored.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from triptych.client import MODEL, GivenUp, Picture
from triptych.gateway.access import require_key
from triptych.gateway.errors import responses
from triptych.gateway.fields import Guidance, Negative, Prompt, Side, Steps, whole
from triptych.gateway.gone import unless_gone
from triptych.gateway.jobs import Jobs
from triptych.gateway.samplers import LABELS, SCHEDULES, scheduler_of
from triptych.settings import MAX_SEED

PREFIX = "/sdapi/v1"
PREVIEW_EVERY = 3
Never = Literal[False] | None


class Error(BaseModel):
    """The shape of the WebUI's errors."""

    error: str
    detail: str
    body: str = ""
    errors: str


class TextToImage(BaseModel):
    """A request for pictures; fields that are not here are ignored."""

    model_config = ConfigDict(extra="ignore")

    prompt: Prompt
    negative_prompt: Negative = ""
    steps: Steps | None = None
    cfg_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    seed: whole(-1, MAX_SEED) | None = -1
    sampler_name: str | None = Field(None, description=", ".join(LABELS.values()))
    sampler_index: str | None = Field(None, description="The older name of sampler_name")
    scheduler: str | None = Field(None, description=", ".join(SCHEDULES.values()))
    batch_size: whole(1, 8) = 1
    n_iter: whole(1, 8) = 1
    send_images: bool = True
    enable_hr: Never = None
    restore_faces: Never = None
    tiling: Never = None
    subseed_strength: Annotated[float, Field(ge=0, le=0)] | None = 0
    script_name: Annotated[str, Field(max_length=0)] | None = None
    styles: Annotated[list[str], Field(max_length=0)] | None = None
    alwayson_scripts: Annotated[dict[str, Any], Field(max_length=0)] | None = None


class Drawn(BaseModel):
    """The pictures, base64; `info` is JSON in a text, as the WebUI has it."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


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


class State(BaseModel):
    job: str
    job_count: int
    job_no: int
    job_timestamp: str
    sampling_step: int
    sampling_steps: int
    interrupted: bool
    skipped: bool = False


class Progress(BaseModel):
    """How far the pictures are that were asked for here and are being drawn."""

    progress: float = Field(ge=0, le=1)
    eta_relative: float = Field(description="Seconds that are left, as it looks now")
    state: State
    current_image: str | None = Field(description="A small preview, base64 of a PNG")
    textinfo: str | None = None


RESPONSES = responses(Error)
router = APIRouter(
    prefix=PREFIX, tags=["WebUI"], dependencies=[Depends(require_key)], responses=RESPONSES
)


@router.post("/txt2img")
async def text_to_image(asked: TextToImage, request: Request) -> Drawn:
    """Draw `batch_size` times `n_iter` pictures of a prompt."""
    requests, warnings = _requests(asked)
    jobs: Jobs = request.app.state.jobs
    pictures: list[Picture] = []
    with jobs.begin(len(requests)) as job:
        drawing = request.app.state.studio.draw(requests, job.watch, PREVIEW_EVERY)
        with contextlib.suppress(GivenUp):  # by /interrupt: an answer without pictures
            pictures = await unless_gone(request, job.interruptible(drawing))
    images = [base64.b64encode(picture.file).decode() for picture in pictures]
    return Drawn(
        images=images if asked.send_images else [],
        parameters=asked.model_dump(exclude_unset=True),
        info=json.dumps(_info(asked, requests, pictures, warnings)),
    )


@router.get("/progress")
def progress(request: Request, skip_current_image: bool = False) -> Progress:
    """How far what is drawn now is, all of it together."""
    jobs: Jobs = request.app.state.jobs
    now = jobs.now()
    preview = None if skip_current_image or now.preview is None else now.preview
    return Progress(
        progress=now.step / now.total if now.total else 0.0,
        eta_relative=now.seconds_left,
        state=State(
            job=f"{now.pictures} pictures" if now.pictures else "",
            job_count=now.pictures,
            job_no=0,
            job_timestamp=time.strftime("%Y%m%d%H%M%S", time.localtime(now.begun)),
            sampling_step=now.step,
            sampling_steps=now.total,
            interrupted=now.interrupted,
        ),
        current_image=base64.b64encode(preview).decode() if preview else None,
    )


@router.post("/interrupt")
async def interrupt(request: Request) -> dict[str, str]:
    """Give up every picture that was asked for at /txt2img."""
    request.app.state.jobs.interrupt()
    return {}


@router.get("/samplers")
def samplers() -> list[Sampler]:
    """The schedulers, by the WebUI's names."""
    return [Sampler(name=label, aliases=[own], options={}) for own, label in LABELS.items()]


@router.get("/schedulers")
def schedules() -> list[Schedule]:
    """How sigmas may be spread, for DPM++ 2M."""
    return [Schedule(name=name, label=label) for name, label in SCHEDULES.items()]


@router.get("/sd-models")
def checkpoints() -> list[Checkpoint]:
    """The one model that is served."""
    return [Checkpoint(title=MODEL, model_name=MODEL)]


@router.get("/options")
def options() -> dict[str, str]:
    """Of the WebUI's options, the model: it cannot be changed here."""
    return {"sd_model_checkpoint": MODEL}


def error_response(problem: HTTPException) -> JSONResponse:
    """A Problem in the shape of the WebUI's errors."""
    error = Error(
        error=type(problem).__name__, detail=str(problem.detail), errors=str(problem.detail)
    )
    return JSONResponse(error.model_dump(), problem.status_code, problem.headers)


def invalid_response(errors: list[dict]) -> JSONResponse:
    """Validation errors as the WebUI, a FastAPI application too, gives them."""
    shown = [{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in errors]
    return JSONResponse({"detail": shown}, 422)


def _requests(asked: TextToImage) -> tuple[list[dict[str, Any]], list[str]]:
    """What the client is to be asked for each picture, and what was not as the request said."""
    sampler = asked.sampler_name or asked.sampler_index
    scheduler, warnings = scheduler_of(sampler, asked.scheduler)
    settings = {
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt,
        "num_inference_steps": asked.steps,
        "guidance_scale": asked.cfg_scale,
        "width": asked.width,
        "height": asked.height,
        "scheduler": scheduler,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    seed = secrets.randbits(32) if asked.seed in (None, -1) else asked.seed
    count = asked.batch_size * asked.n_iter
    return [{**settings, "seed": seed + i} for i in range(count)], warnings


def _info(
    asked: TextToImage,
    requests: list[dict[str, Any]],
    pictures: list[Picture],
    warnings: list[str],
) -> dict[str, Any]:
    """What the WebUI tells of pictures: the first one's settings, and what differs of each."""
    made = [picture.settings for picture in pictures]
    first = made[0] if made else None
    return {
        "prompt": asked.prompt,
        "all_prompts": [one.prompt for one in made],
        "negative_prompt": asked.negative_prompt,
        "all_negative_prompts": [one.negative_prompt for one in made],
        "seed": requests[0]["seed"],
        "all_seeds": [one.seed for one in made],
        "width": first and first.width,
        "height": first and first.height,
        "sampler_name": first and LABELS[first.scheduler],
        "cfg_scale": first and first.guidance_scale,
        "steps": first and first.num_inference_steps,
        "batch_size": asked.batch_size,
        "sd_model_name": MODEL,
        "index_of_first_image": 0,
        "warnings": [*warnings, *(warning for one in made for warning in one.warnings)],
    }
