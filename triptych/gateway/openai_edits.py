"""OpenAI's images API where a picture comes in: edits, and variations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from triptych.gateway.access import KeyFirst, require_key
from triptych.gateway.errors import Problem
from triptych.gateway.fields import MaskBlur, PaddingMaskCrop, Strength, only
from triptych.gateway.forms import Form, described, read_form
from triptych.gateway.openai import PREFIX, RESPONSES, Words, is_dall_e
from triptych.gateway.openai_jobs import OR_JOB, InBackground, answer_or_job
from triptych.gateway.pictures import in_thread, transparent_part

VARIATION_STRENGTH = 0.6
"""Enough of the picture is left to be known again, and little enough for another one to come."""

NAMES = {"mask_image": "mask"}
FILES = ("image", "mask")


class Edit(InBackground):
    """A request for a picture to be changed. Without `strength`: 0.8, with a mask 1."""

    prompt: Words
    input_fidelity: only(None, "low") = None
    strength: Strength | None = None
    mask_blur: MaskBlur | None = None
    padding_mask_crop: PaddingMaskCrop | None = None


class Variation(InBackground):
    """A request for pictures like another one."""

    strength: Strength | None = VARIATION_STRENGTH


router = APIRouter(
    prefix=PREFIX,
    tags=["OpenAI"],
    route_class=KeyFirst,
    dependencies=[Depends(require_key)],
    responses=RESPONSES,
)
short = APIRouter(
    route_class=KeyFirst, dependencies=[Depends(require_key)], include_in_schema=False
)


@short.post("/images/edits", **OR_JOB)
@router.post("/images/edits", **OR_JOB, openapi_extra=described(Edit, FILES, ("image",)))
async def edit_images(request: Request) -> Any:
    """Change a picture, `n` times: all of it, or what the transparent part of `mask` covers."""
    form = await read_form(request, Edit, FILES)
    asked: Edit = form.fields
    image = _image(form)
    if "mask" in form.files:
        mask = await in_thread(transparent_part, "mask", form.files["mask"])
        if mask is None:
            allowed = "a picture with a transparent part, which is painted anew"
            raise Problem(400, f"mask: got one that is opaque; allowed: {allowed}", "mask")
    else:
        mask = await in_thread(transparent_part, "image", image) if is_dall_e(asked) else None
    names = ("strength", "mask_blur", "padding_mask_crop")
    own = {name: getattr(asked, name) for name in names}
    more = {"prompt": asked.prompt, "image": image, "mask_image": mask, **own}
    return await answer_or_job(asked, request, more, NAMES)


@short.post("/images/variations", **OR_JOB)
@router.post(
    "/images/variations", **OR_JOB, openapi_extra=described(Variation, FILES[:1], FILES[:1])
)
async def vary_image(request: Request) -> Any:
    """Draw `n` pictures like another one, without a prompt."""
    form = await read_form(request, Variation, FILES[:1])
    more: dict[str, Any] = {"prompt": "", "image": _image(form)}
    strength = form.fields.strength
    more["strength"] = VARIATION_STRENGTH if strength is None else strength
    return await answer_or_job(form.fields, request, more, NAMES)


def _image(form: Form) -> bytes:
    if "image" not in form.files:
        raise Problem(400, "image: got nothing; allowed: a PNG, JPEG or WebP file", "image")
    return form.files["image"]
