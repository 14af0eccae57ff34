"""The API of the Stable Diffusion WebUI, as much as its clients use to draw.

Its names and shapes; what a request leaves out is the served model's own default, not the WebUI's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from triptych.client import GivenUp, Picture, Refused
from triptych.gateway import webui_facts, webui_progress
from triptych.gateway.access import KeyFirst, require_key
from triptych.gateway.errors import Problem, problem, renamed, responses, said
from triptych.gateway.gone import unless_gone
from triptych.gateway.jobs import Jobs
from triptych.gateway.keys import TooMany
from triptych.gateway.pictures import in_thread
from triptych.gateway.reading import read
from triptych.gateway.samplers import LABELS
from triptych.gateway.studio import Studio, Watch
from triptych.gateway.webui_hires import TextToImage, draw_twice
from triptych.gateway.webui_img2img import ImageToImage, brought
from triptych.gateway.webui_request import NAMES, Asked, requests_of
from triptych.picture.infotext import infotext

PREFIX = "/sdapi/v1"
PREFIXES = (PREFIX, "/internal/")
PREVIEW_EVERY = 3
Drawing = Coroutine[Any, Any, list[Picture]]


class Error(BaseModel):
    """The shape of the WebUI's errors."""

    error: str
    detail: str
    body: str = ""
    errors: str


class Drawn(BaseModel):
    """The pictures, base64; `info` is JSON in a text, as the WebUI has it."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class PngInfo(BaseModel):
    image: str = Field(description="A file in base64, or a data: address")


class PictureInfo(BaseModel):
    """`info` is the WebUI's text of the settings, `parameters` the settings by our names."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


RESPONSES = responses(Error)
COMMON: dict[str, Any] = {
    "tags": ["WebUI"],
    "route_class": KeyFirst,
    "dependencies": [Depends(require_key)],
    "responses": RESPONSES,
}
router = APIRouter(prefix=PREFIX, **COMMON)
internal = APIRouter(**COMMON)


@router.post("/txt2img")
async def text_to_image(asked: TextToImage, request: Request) -> Drawn:
    """Draw `batch_size` times `n_iter` pictures of a prompt, with `enable_hr` in two passes."""
    studio: Studio = request.app.state.studio
    requests, warnings = requests_of(asked)
    requests = await webui_facts.with_checkpoint(requests, request)
    if not asked.enable_hr:
        return await _drawn(asked, request, requests, warnings)

    def twice(watch: Watch) -> Drawing:
        return draw_twice(studio, asked, requests, watch, PREVIEW_EVERY)

    return await _drawn(asked, request, requests, warnings, twice)


@router.post("/img2img")
async def image_to_image(asked: ImageToImage, request: Request) -> Drawn:
    """Draw `batch_size` times `n_iter` pictures from another one, or anew where a mask is white."""
    requests, warnings = requests_of(asked)
    requests = await webui_facts.with_checkpoint(requests, request)
    more = await in_thread(brought, asked)
    answer = await _drawn(asked, request, [{**one, **more} for one in requests], warnings)
    if not asked.include_init_images:
        answer.parameters.update(dict.fromkeys(("init_images", "mask")))
    return answer


@router.post("/png-info")
def png_info(asked: PngInfo) -> PictureInfo:
    """The settings in a picture's file, also of other programs; nothing where there are none."""
    try:
        found = read(base64.b64decode(asked.image.rpartition(",")[2], validate=True))
    except (Problem, ValueError):
        return PictureInfo(info="", items={}, parameters={})
    return PictureInfo(info=found.text, items={"parameters": found.text}, parameters=found.settings)


router.include_router(webui_facts.router)
router.include_router(webui_progress.router)
internal.include_router(webui_progress.internal)


async def _drawn(
    asked: Asked,
    request: Request,
    requests: list[dict[str, Any]],
    warnings: list[str],
    draw: Callable[[Watch], Drawing] | None = None,
) -> Drawn:
    """The answer with the pictures of `requests`, which `draw` draws, or the studio in one pass."""
    jobs: Jobs = request.app.state.jobs
    pictures: list[Picture] = []
    with jobs.begin(len(requests), asked.force_task_id) as job:
        if draw is None:
            drawing = request.app.state.studio.draw(requests, job.watch, PREVIEW_EVERY)
        else:
            drawing = draw(job.watch)
        try:
            pictures = await unless_gone(request, job.interruptible(drawing))
        except TooMany as error:
            got = f"{asked.batch_size}, times n_iter {asked.n_iter}"
            told = f"batch_size: got {got}; allowed: {error.allowed}"
            raise Problem(400, told, "batch_size") from error
        except Refused as error:
            raise renamed(problem(error), NAMES) from error
        except GivenUp:  # by /interrupt: an answer without pictures
            pass
    images = [base64.b64encode(picture.file).decode() for picture in pictures]
    return Drawn(
        images=images if asked.send_images is not False else [],
        parameters=asked.model_dump(exclude_unset=True),
        info=json.dumps(_info(asked, requests, pictures, warnings)),
    )


def error_response(problem: HTTPException) -> JSONResponse:
    """A Problem in the shape of the WebUI's errors."""
    error = Error(
        error=type(problem).__name__, detail=str(problem.detail), errors=str(problem.detail)
    )
    return JSONResponse(error.model_dump(), problem.status_code, problem.headers)


def invalid_response(errors: list[dict]) -> JSONResponse:
    """Validation errors as the WebUI, a FastAPI application too, gives them."""
    shown = [{"loc": list(one["loc"]), "msg": said(one), "type": one["type"]} for one in errors]
    return JSONResponse({"detail": shown}, 422)


def _info(
    asked: Asked,
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
        "sd_model_name": requests[0]["model"],
        "index_of_first_image": 0,
        "infotexts": [infotext(one) for one in made],
        "warnings": [*warnings, *(warning for one in made for warning in one.warnings)],
    }
