"""How far pictures of the WebUI's API are, and their end: each caller's own."""

from __future__ import annotations

import base64
import time

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from triptych.gateway.fields import whole
from triptych.gateway.jobs import Jobs

router = APIRouter()
internal = APIRouter(prefix="/internal")


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
    """How far the caller's pictures are that are being drawn."""

    progress: float = Field(ge=0, le=1)
    eta_relative: float = Field(description="Seconds that are left, as it looks now")
    state: State
    current_image: str | None = Field(description="A small preview, base64 of a PNG")
    textinfo: str | None = None


class Task(BaseModel):
    id_task: str = Field(max_length=200, description="The request's `force_task_id`")
    id_live_preview: whole(-1, 2**31 - 1, "Of the newest preview that is known already") = -1


class TaskProgress(BaseModel):
    """How far the pictures of one request are; `active` is true from their first step on."""

    active: bool
    queued: bool
    completed: bool
    progress: float | None = None
    eta: float | None = Field(None, description="Seconds that are left, as it looks now")
    live_preview: str | None = Field(None, description="A small preview, a data: address")
    id_live_preview: int = -1
    textinfo: str | None = None


@router.get("/progress")
def progress(request: Request, skip_current_image: bool = False) -> Progress:
    """How far what is drawn for the caller now is, all of it together."""
    jobs: Jobs = request.app.state.jobs
    now = jobs.now()
    preview = None if skip_current_image else now.preview
    return Progress(
        progress=now.progress,
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
    """Give up every picture that the caller asked for at /txt2img and /img2img."""
    request.app.state.jobs.interrupt()
    return {}


@internal.post("/progress")
async def task_progress(asked: Task, request: Request) -> TaskProgress:
    """How far the pictures of the request with that `force_task_id` are."""
    jobs: Jobs = request.app.state.jobs
    now = jobs.now(asked.id_task)
    if not now.total:
        completed = jobs.has_ended(asked.id_task)
        return TaskProgress(active=False, queued=now.pictures > 0, completed=completed)
    told = TaskProgress(
        active=True,
        queued=False,
        completed=False,
        progress=now.progress,
        eta=now.seconds_left,
        id_live_preview=now.previews,
    )
    if now.preview and now.previews != asked.id_live_preview:
        told.live_preview = f"data:image/png;base64,{base64.b64encode(now.preview).decode()}"
    return told
