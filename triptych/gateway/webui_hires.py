"""The WebUI's second pass: the picture, or its latents, made larger, and drawn once more."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from triptych.client import Picture, Refused
from triptych.errors import shorten
from triptych.gateway.errors import Problem, problem, renamed
from triptych.gateway.fields import Negative, Prompt, Strength, only, whole
from triptych.gateway.pictures import ANY_PICTURE, fitting, in_thread, opened
from triptych.gateway.studio import Studio, Watch
from triptych.gateway.webui_request import NAMES, Asked, or_else
from triptych.limits import WIDEST
from triptych.picture import crop
from triptych.picture.infotext import LATENT_UPSCALERS
from triptych.settings import Settings
from triptych.streaming import Step

UPSCALERS = {"Lanczos": Image.LANCZOS, "Nearest": Image.NEAREST}
LATENT_MODES = {name: interpolation for interpolation, name in LATENT_UPSCALERS.items()}
USUAL_UPSCALER = "Latent"
USUAL_STRENGTH = 0.75
_MANY = 10**6
"""Steps that no server makes: what a tiny denoising_strength would take is refused as so many."""
Scale = Annotated[float, Field(ge=1, le=8, allow_inf_nan=False)]
Target = whole(0, 4096, "Pixels, in place of hr_scale; 0 by the other side")


class TextToImage(Asked):
    """A request for pictures of a prompt; fields of the second pass mean nothing without it."""

    enable_hr: bool | None = Field(False, description="Draw once more, at a larger size")
    hr_scale: Annotated[Scale, or_else(2.0)] = 2.0
    hr_resize_x: Annotated[Target, or_else(0)] = 0
    hr_resize_y: Annotated[Target, or_else(0)] = 0
    hr_upscaler: Annotated[str, or_else(USUAL_UPSCALER)] = Field(
        USUAL_UPSCALER, description=", ".join((*LATENT_MODES, *UPSCALERS))
    )
    hr_second_pass_steps: Annotated[
        whole(0, WIDEST.max_num_inference_steps, "0: as many as steps"), or_else(0)
    ] = 0
    denoising_strength: Annotated[Strength, or_else(USUAL_STRENGTH)] = USUAL_STRENGTH
    hr_prompt: Annotated[Prompt, or_else("")] = ""
    hr_negative_prompt: Annotated[Negative, or_else("")] = ""
    hr_sampler_name: only(None, "", "Use same sampler") = None
    hr_scheduler: only(None, "", "Use same scheduler") = None
    hr_checkpoint_name: only(None, "", "Use same checkpoint") = None
    firstphase_width: only(None, 0) = None
    firstphase_height: only(None, 0) = None
    firstpass_image: only(None, "") = None


async def draw_twice(
    studio: Studio,
    asked: TextToImage,
    requests: list[dict[str, Any]],
    watch: Watch,
    preview_every: int,
) -> list[Picture]:
    """`Studio.draw`, and each picture drawn once more from its latents or itself, made larger.

    Latents stay in the server, which makes both passes of one request. Before anything is drawn it
    is seen to that the server takes the second pass. Raises a ClientError or a Problem, with the
    request's names of fields.
    """
    upscaler = asked.hr_upscaler
    if upscaler not in (*LATENT_MODES, *UPSCALERS):
        raise _refused("hr_upscaler", upscaler, ", ".join((*LATENT_MODES, *UPSCALERS)))
    usual = await studio.ask(lambda: studio.client.settings_of(**requests[0]))
    size = _target(asked, usual)
    more = {**_second(asked, usual), "width": size[0], "height": size[1]}
    if upscaler in LATENT_MODES:
        for name in ("hr_prompt", "hr_negative_prompt"):
            value = getattr(asked, name)
            if value not in ("", getattr(asked, name.removeprefix("hr_"))):
                raise _refused(name, value, f"the first pass's with {upscaler}, or nothing")
        second = {**more, "interpolation": LATENT_MODES[upscaler]}
        requests = [{**one, "second_pass": second} for one in requests]
        await _check(studio, asked, requests[0])
        return await studio.draw(requests, watch, preview_every)
    words = {
        "prompt": asked.hr_prompt or asked.prompt,
        "negative_prompt": asked.hr_negative_prompt or asked.negative_prompt,
    }
    more.update(words)
    await _check(studio, asked, {**requests[0], **more, "image": ANY_PICTURE})
    calls = [0] * len(requests)

    def first(number: int, step: Step) -> None:
        calls[number] = step.total
        whole_way = dataclasses.replace(step, total=step.total + _steps(asked, usual))
        watch(number, whole_way)

    def second(number: int, step: Step) -> None:
        before = calls[number]
        watch(number, dataclasses.replace(step, step=before + step.step, total=before + step.total))

    exact = [{**one, "output_format": "png"} for one in requests]
    small = await studio.draw(exact, first, preview_every)
    enlarged = await asyncio.gather(
        *(in_thread(_enlarged, one.file, size, UPSCALERS[upscaler]) for one in small)
    )
    again = [{**one, **more, "image": image} for one, image in zip(requests, enlarged)]
    return await studio.draw(again, second, preview_every)


def _refused(name: str, value: Any, allowed: str) -> Problem:
    return Problem(400, f"{name}: got {shorten(value)}; allowed: {allowed}", name)


async def _check(studio: Studio, asked: TextToImage, request: dict[str, Any]) -> None:
    """Raise a Problem, with the WebUI's names, where the server would not take the second pass."""
    try:
        await studio.ask(lambda: studio.client.settings_of(**request))
    except Refused as error:
        raise _said(problem(error), asked) from error


def _steps(asked: TextToImage, usual: Settings) -> int:
    return asked.hr_second_pass_steps or usual.num_inference_steps


def _second(asked: TextToImage, usual: Settings) -> dict[str, Any]:
    """What is other in the second pass, but for its size and what it starts from.

    The WebUI makes all of the second pass's steps: here they are the last ones of so many more.
    """
    strength, wanted = asked.denoising_strength, _steps(asked, usual)
    if not strength:
        raise _refused("denoising_strength", 0, "over 0 to 1 with enable_hr")
    all_steps = math.ceil(min(wanted / strength, _MANY))
    if int(all_steps * strength) < wanted:  # a float's last digit
        all_steps += 1
    return {"strength": strength, "num_inference_steps": all_steps}


def _target(asked: TextToImage, usual: Settings) -> tuple[int, int]:
    """Width and height of the second pass; those that come of a scale are multiples of 8."""
    x, y = asked.hr_resize_x, asked.hr_resize_y
    if x and y:
        return x, y
    scale = x / usual.width or y / usual.height or asked.hr_scale
    width, height = (int(side * scale) // 8 * 8 for side in (usual.width, usual.height))
    return x or width, y or height


def _enlarged(file: bytes, size: tuple[int, int], filter: int) -> bytes:
    return fitting(crop.cover(opened("image", file), size, filter))


def _said(refused: Problem, asked: TextToImage) -> Problem:
    """The server's problem with the second pass, said of the field that asks for it."""
    got, _, allowed = str(refused.detail).removeprefix("second_pass.").partition("; allowed: ")
    field = str(refused.field).removeprefix("second_pass.")
    by_size = {"width": asked.hr_resize_x, "height": asked.hr_resize_y}
    if field in by_size:
        own = {"width": "hr_resize_x", "height": "hr_resize_y"}[field]
        name = own if by_size[field] else "hr_scale"
        made = got.replace(f"{field}: got ", "")
        value = f"{getattr(asked, name):g}, a {field} of {made}"
    elif field == "image":
        name, value = "enable_hr", "true"
    elif field == "num_inference_steps":
        name = "hr_second_pass_steps"
        value = f"{asked.hr_second_pass_steps}, with a denoising_strength of"
        value += f" {asked.denoising_strength:g} {got.rpartition(' ')[2]} num_inference_steps"
    else:
        return renamed(refused, NAMES)
    return Problem(400, f"{name}: got {value}; allowed: {allowed}", name)
