"""The settings of a picture as fields of a request; the server's own limits are narrower."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from triptych import schedulers
from triptych.checks import MAX_SIZE
from triptych.errors import InvalidRequest, shorten
from triptych.limits import MAX_CACHE_INTERVAL, MAX_CLIP_SKIP, MAX_MASK_BLUR, MAX_PADDING
from triptych.lora import request as lora_request
from triptych.settings import MAX_SEED, PICTURE_KEYS, WIDEST, Settings


def _scheduler(name: str) -> str:
    try:
        schedulers.resolve(name)
    except InvalidRequest as error:
        raise ValueError(str(error)) from error
    return name


def _integer(value: Any) -> Any:
    """JSON has one kind of number: 20.0 is an integer there."""
    return int(value) if type(value) is float and value.is_integer() else value


def whole(low: int, high: int, description: str | None = None) -> Any:
    """The type of a whole number from `low` to `high`."""
    field = Field(strict=True, ge=low, le=high, description=description)
    return Annotated[int, field, BeforeValidator(_integer)]


def matching(pattern: str, allowed: str) -> tuple[Any, ...]:
    """What restricts a text's type to `pattern`; errors say what is `allowed`, for people."""

    def check(value: str) -> str:
        if not re.search(pattern, value):
            raise ValueError(f"got {shorten(value)}; allowed: {allowed}")
        return value

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern})


def only(*values: Any) -> Any:
    """The type of a field that is not served: these values mean nothing, others are refused."""

    def check(value: Any) -> Any:
        if value not in values:
            shown = ", ".join(shorten(one) for one in values)
            raise ValueError(f"got {shorten(value)}; allowed: {shown}")
        return value

    return Annotated[Any, AfterValidator(check), Field(description="Not served: leave it out")]


Prompt = Annotated[
    str, Field(max_length=WIDEST.max_prompt_bytes, description="What to draw; it may be empty")
]
Negative = Annotated[
    str, Field(max_length=WIDEST.max_prompt_bytes, description="What to keep out of the picture")
]
Steps = whole(1, WIDEST.max_num_inference_steps, "Denoising steps")
Guidance = Annotated[
    float,
    Field(
        strict=True,
        ge=0,
        le=WIDEST.max_guidance_scale,
        allow_inf_nan=False,
        description="How closely to follow the prompt",
    ),
]
Eta = Annotated[
    float, Field(strict=True, ge=0, le=1, description="New noise of a step, of DDIM and TCD")
]
Scheduler = Annotated[str, AfterValidator(_scheduler), Field(description=schedulers.ALLOWED)]
Spacing = Annotated[
    Literal["leading", "linspace", "trailing"], Field(description="How timesteps are spread")
]
Syntax = Annotated[
    Literal["plain", "webui"],
    Field(description="plain, or the WebUI's: (words:1.2), [words], BREAK, prompts of any length"),
]
ClipSkip = whole(0, MAX_CLIP_SKIP, "Last layers of the text encoder left out, as in diffusers")
Rescale = Annotated[
    float,
    Field(strict=True, ge=0, le=1, allow_inf_nan=False, description="Keeps guidance from glare"),
]


def _part_of_steps(description: str) -> Any:
    field = Field(strict=True, ge=0, le=1, allow_inf_nan=False, description=description)
    return Annotated[float, field]


def _two(description: str) -> Any:
    field = Field(min_length=2, max_length=2, description=description)
    return Annotated[list[whole(0, MAX_SIZE)], field]


class Ours(BaseModel):
    """What every API takes under the server's own names, since none has names for it."""

    guidance_start: _part_of_steps("The part of the steps before guidance begins") | None = None
    guidance_stop: _part_of_steps("The part of the steps after which guidance ends") | None = None
    cache_interval: (
        whole(1, MAX_CACHE_INTERVAL, "The UNet's deep part runs every so many steps") | None
    ) = None
    prompt_2: (
        Annotated[Prompt, Field(description="SDXL: what its second text encoder reads")] | None
    ) = None
    negative_prompt_2: (
        Annotated[Negative, Field(description="SDXL: the same of the negative prompt")] | None
    ) = None
    original_size: _two("SDXL: height and width that the model is told the picture had") | None = (
        None
    )
    crops_coords_top_left: _two("SDXL: top and left that it is told of a cut") | None = None
    target_size: _two("SDXL: height and width that it is told the picture has") | None = None


class LoraAsked(BaseModel):
    """A LoRA, by the name of its file, and how much of it."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=lora_request.LONGEST_NAME)]
    scale: Annotated[
        float,
        Field(strict=True, ge=-lora_request.MOST_SCALE, le=lora_request.MOST_SCALE),
    ] = 1.0


Loras = Annotated[
    list[LoraAsked], Field(max_length=lora_request.MOST, description="LoRAs of the server")
]
Strength = Annotated[
    float,
    Field(
        strict=True,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The part of the steps that is made from the picture; 1 keeps nothing of it",
    ),
]
MaskBlur = Annotated[
    float,
    Field(
        strict=True,
        ge=0,
        le=MAX_MASK_BLUR,
        allow_inf_nan=False,
        description="Pixels by which the mask is blurred",
    ),
]
PaddingMaskCrop = whole(
    0, MAX_PADDING, "Draw the masked part alone at the full size, with so many pixels around it"
)
Side = whole(8, 4096, "Pixels")
Seed = whole(0, MAX_SEED)


def size_of(text: str | None) -> dict[str, int]:
    """`width` and `height` out of "WIDTHxHEIGHT"; nothing, the server's own size, for "auto"."""
    if text in (None, "auto"):
        return {}
    width, height = text.split("x")
    return {"width": int(width), "height": int(height)}


def told(settings: Settings) -> dict[str, Any]:
    """What a picture was made with, for whoever asked for it."""
    values = {name: settings.json_value(name) for name in (*PICTURE_KEYS, "warnings", "model")}
    return {name: value for name, value in values.items() if value is not None}
