"""OpenAI's images API where a prompt comes in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from triptych.gateway.access import require_key
from triptych.gateway.openai import PREFIX, RESPONSES, Words
from triptych.gateway.openai_jobs import OR_JOB, InBackground, answer_or_job


class Generation(InBackground):
    """A request for pictures of a prompt."""

    prompt: Words


router = APIRouter(
    prefix=PREFIX, tags=["OpenAI"], dependencies=[Depends(require_key)], responses=RESPONSES
)
short = APIRouter(dependencies=[Depends(require_key)], include_in_schema=False)


@short.post("/images/generations", **OR_JOB)
@router.post("/images/generations", **OR_JOB)
async def create_images(asked: Generation, request: Request) -> Any:
    """Draw `n` pictures of a prompt, or, with `background` true, begin a job that does."""
    return await answer_or_job(asked, request, {"prompt": asked.prompt})
