"""The settings of one image: from the request's text, through every stage, into the picture."""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triptych import checks, schedulers, second_pass
from triptych.checks import optional
from triptych.defaults import Defaults
from triptych.errors import InvalidRequest
from triptych.json_object import json_object
from triptych.limits import MAX_CLIP_SKIP, MAX_MASK_BLUR, MAX_PADDING, WIDEST, Limits
from triptych.lora import request as lora_request
from triptych.second_pass import SecondPass

OUTPUT_FORMATS = ("png", "jpeg", "webp")
PROMPT_SYNTAXES = ("plain", "webui")
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Settings:
    """Everything that one image is made from, under diffusers' names; see `parse`.

    `timestep_spacing` is None where the model's own is meant, `eta` where the scheduler's is,
    `prompt_syntax` for `plain`, `clip_skip`, `guidance_rescale` and `guidance_start` for 0,
    `guidance_stop` and `cache_interval` for 1, `strength` for an image that starts from noise
    alone; `mask_blur` and `padding_mask_crop` are pixels, None where not asked for; `SDXL_KEYS` too
    (see `triptych.sdxl`). The pictures themselves go beside the settings. `loras` are those that
    are asked for beside the prompt. `text_inputs`: what the text encoder takes for both prompts,
    for unet_loop to call it again with LoRAs. `model`: what it is drawn with, None for the model
    that is meant by no name.
    `deadline`: when nobody waits for the image any more, in seconds of this machine's monotonic
    clock, which all stages share; it leaves no mark on the image.
    """

    prompt: str
    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    seed: int
    height: int
    width: int
    scheduler: str
    output_format: str
    warnings: tuple[str, ...] = ()
    deadline: float | None = None
    timestep_spacing: str | None = None
    eta: float | None = None
    strength: float | None = None
    mask_blur: float | None = None
    padding_mask_crop: int | None = None
    prompt_syntax: str | None = None
    clip_skip: int | None = None
    guidance_rescale: float | None = None
    guidance_start: float | None = None
    guidance_stop: float | None = None
    cache_interval: int | None = None
    second_pass: SecondPass | None = None
    loras: tuple[lora_request.Lora, ...] | None = None
    prompt_2: str | None = None
    negative_prompt_2: str | None = None
    original_size: tuple[int, int] | None = None
    crops_coords_top_left: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    text_inputs: Mapping[str, Any] | None = None
    model: str | None = None

    @property
    def expired(self) -> bool:
        """Whether the deadline is past."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def guided_steps(self, steps: int) -> range:
        """Those of an image's `steps`, counted from 0, that have guidance.

        The rule of diffusers' guiders (`ClassifierFreeGuidance` with `start` and `stop`).
        """
        start = 0.0 if self.guidance_start is None else self.guidance_start
        stop = 1.0 if self.guidance_stop is None else self.guidance_stop
        return range(int(start * steps), int(stop * steps))

    def prompts(self) -> dict[str, str]:
        """The texts to draw and not to draw, by their names, those of `SDXL_KEYS` if given."""
        names = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")
        found = {name: getattr(self, name) for name in names}
        return {name: text for name, text in found.items() if text is not None}

    def to_json(self) -> str:
        """The `settings` tensor that goes from stage to stage."""
        names = [field.name for field in dataclasses.fields(self)]
        values = {name: self.json_value(name) for name in names}
        return json.dumps({name: value for name, value in values.items() if value is not None})

    def json_value(self, name: str) -> Any:
        """The value of a setting as a request's JSON has it."""
        value = getattr(self, name)
        if name == "loras" and value:
            return [lora._asdict() for lora in value]
        return value._asdict() if name == "second_pass" and value else value

    @classmethod
    def from_json(cls, text: str | bytes, limits: Limits = WIDEST) -> Settings:
        """The settings in what `to_json` gave; InvalidRequest for anything else."""
        whole = "a JSON object as the tokenizer stage gives it"
        if isinstance(text, bytes):
            text = _decode("settings", text)
        values = json_object(text, "settings", PICTURE_KEYS)
        if values is None:
            raise InvalidRequest("settings", text, whole)
        warnings = values.pop("warnings", ())
        if not isinstance(warnings, (list, tuple)):
            raise InvalidRequest("warnings", warnings, "a list of texts")
        for warning in warnings:
            if checks.utf8(warning) is None:
                raise InvalidRequest("warnings", warning, "a list of texts")
        text_inputs = values.pop("text_inputs", None)
        if text_inputs is not None and not isinstance(text_inputs, dict):
            raise InvalidRequest("text_inputs", text_inputs, "an object as the tokenizer gives it")
        model = values.pop("model", None)
        if model is not None and checks.utf8(model) is None:
            raise InvalidRequest("model", model, "a text")
        deadline = values.pop("deadline", None)
        if deadline is not None and not (checks.is_number(deadline) and math.isfinite(deadline)):
            raise InvalidRequest("deadline", deadline, "a time of the monotonic clock")
        for name in PICTURE_KEYS:
            if name not in values and name not in OPTIONAL_KEYS:
                raise InvalidRequest("settings", text, f"{whole}, with {name}")
        # A side's bounds of its own belong to the request; here any positive side will do.
        checked = _check(values, dataclasses.replace(limits, min_side=1), size_multiple=1)
        more = {"deadline": deadline, "text_inputs": text_inputs, "model": model}
        return dataclasses.replace(checked, warnings=tuple(warnings), **more)


_NOT_ASKED_FOR = ("warnings", "deadline", "text_inputs", "model")
PICTURE_KEYS = tuple(
    field.name for field in dataclasses.fields(Settings) if field.name not in _NOT_ASKED_FOR
)
"""The settings that a request can give its picture."""

TEXT_KEYS = tuple(
    field.name for field in dataclasses.fields(Settings) if field.type in ("str", "str | None")
)
"""Those of them that are texts."""

SIZES = ("original_size", "crops_coords_top_left", "target_size")
SDXL_KEYS = ("prompt_2", "negative_prompt_2", *SIZES)
"""What models of SDXL's kind alone take."""

OPTIONAL_KEYS = (
    *("timestep_spacing", "eta", "strength", "mask_blur", "padding_mask_crop"),
    *("prompt_syntax", "clip_skip", "guidance_rescale", "guidance_start", "guidance_stop"),
    *("cache_interval", "second_pass", "loras", *SDXL_KEYS),
)
"""Those of them that a picture may have been made without."""

PICTURES = ("image", "mask_image")
"""The pictures that a request can bring, in base64; they are no settings."""

REQUEST_KEYS = (*PICTURE_KEYS, *PICTURES, "timeout")
"""All that a request's JSON object can hold."""


def parse(
    raw: bytes, defaults: Defaults, limits: Limits, parameters: Mapping[str, Any] | None = None
) -> Settings:
    """The settings that a request's INPUT_0 asks for.

    `defaults` are for what `raw` and `parameters` leave open; see `asked`. Without a seed the
    settings get a random one; `timeout`, in seconds, gives them a deadline that long from now. For
    requests that bring pictures see `picture.request`. Raises InvalidRequest, and nothing else, for
    what cannot be served.
    """
    return settled(asked(raw, limits, parameters), defaults, limits)


def asked(
    raw: bytes, limits: Limits, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a request's INPUT_0 says, by its keys; the values are not checked.

    `raw` is UTF-8: a JSON object with keys of `REQUEST_KEYS`, of which only `prompt` is required,
    or any other text, which is then the prompt. `parameters` are those of Triton's protocol: keys
    of `PICTURE_KEYS` too, each of them here or in `raw`; numbers may be texts, since the protocol
    has no whole number over 2^63, and not everywhere a fraction. Raises InvalidRequest, also for a
    text that begins as a JSON object, or as a list of objects, and is none.
    """
    # A character of JSON is at most 12 bytes for 2 of UTF-16, 6 for one ASCII letter.
    most = 12 * limits.max_prompt_bytes + 4096
    if b"image" in raw:
        most += 3 * limits.max_picture_bytes  # two of base64, 4 bytes for 3
    if len(raw) > most:
        raise InvalidRequest("INPUT_0", raw, f"at most {most} bytes")
    text = _decode("INPUT_0", raw)
    values = json_object(text, "INPUT_0", REQUEST_KEYS)
    if values is None:
        if not text.strip():
            allowed = 'a text that is not blank; {"prompt": ""} for an empty prompt'
            raise InvalidRequest("prompt", text, allowed)
        values = {"prompt": text}
    elif "prompt" not in values:
        raise InvalidRequest("prompt", None, "a text; a JSON object must have a prompt")
    elif _is_request(values["prompt"]):
        raise InvalidRequest("prompt", values["prompt"], "a text, not a whole request in one")
    for name, value in (parameters or {}).items():
        if name in values:
            raise InvalidRequest(name, value, "each key once, in INPUT_0 or as a parameter")
        if name not in PICTURE_KEYS:
            allowed = f"only the parameters {', '.join(PICTURE_KEYS)}"
            if name == "timeout":
                allowed = "in a JSON object in INPUT_0, in seconds; no parameter"
            raise InvalidRequest(name, value, allowed)
        values[name] = value if name in TEXT_KEYS else checks.number(value)
    return values


def settled(asked: Mapping[str, Any], defaults: Defaults, limits: Limits) -> Settings:
    """The settings for what was asked, with `defaults` for the rest; InvalidRequest as `parse`."""
    values = {
        "negative_prompt": "",
        "num_inference_steps": defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale,
        "height": defaults.height,
        "width": defaults.width,
        "scheduler": defaults.scheduler,
        "output_format": OUTPUT_FORMATS[0],
        **asked,
    }
    if "seed" not in values:
        values["seed"] = secrets.randbits(32)
    deadline = checks.deadline(values.pop("timeout")) if "timeout" in values else None
    settings = _check(values, limits, defaults.size_multiple, defaults.scheduler_config)
    return dataclasses.replace(settings, deadline=deadline, model=defaults.model)


def _is_request(prompt: Any) -> bool:
    """Whether a prompt is itself an object with a prompt: JSON that was made JSON twice."""
    try:
        values = json_object(prompt, "prompt", REQUEST_KEYS) if isinstance(prompt, str) else None
    except InvalidRequest:
        return False
    return values is not None and "prompt" in values


def _decode(field: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(field, raw, "text in UTF-8") from None


def _check(
    values: dict[str, Any],
    limits: Limits,
    size_multiple: int,
    scheduler_config: Mapping[str, Any] | None = None,
) -> Settings:
    for key, value in values.items():
        if key not in PICTURE_KEYS:
            raise InvalidRequest(key, value, f"only the keys {', '.join(REQUEST_KEYS)}")
    prompt = checks.text("prompt", values["prompt"], limits)
    steps, guidance = values["num_inference_steps"], values["guidance_scale"]
    height, width = checks.size(values, limits, size_multiple)
    return Settings(
        prompt=prompt,
        negative_prompt=checks.text("negative_prompt", values["negative_prompt"], limits),
        num_inference_steps=checks.integer(
            "num_inference_steps", steps, limits.max_num_inference_steps
        ),
        guidance_scale=checks.real("guidance_scale", guidance, limits.max_guidance_scale),
        seed=checks.integer("seed", values["seed"], MAX_SEED, low=0),
        height=height,
        width=width,
        scheduler=checks.scheduler(values["scheduler"], scheduler_config or {}),
        output_format=checks.one_of("output_format", values["output_format"], OUTPUT_FORMATS),
        timestep_spacing=optional(checks.one_of, "timestep_spacing", values, schedulers.SPACINGS),
        eta=optional(checks.real, "eta", values, 1),
        strength=checks.strength(values),
        mask_blur=optional(checks.real, "mask_blur", values, MAX_MASK_BLUR),
        padding_mask_crop=optional(checks.integer, "padding_mask_crop", values, MAX_PADDING, 0),
        prompt_syntax=optional(checks.one_of, "prompt_syntax", values, PROMPT_SYNTAXES),
        clip_skip=optional(checks.integer, "clip_skip", values, MAX_CLIP_SKIP, 0),
        guidance_rescale=optional(checks.real, "guidance_rescale", values, 1),
        **checks.guidance_window(values),
        cache_interval=checks.cache_interval(values),
        second_pass=second_pass.read(values, limits, size_multiple),
        loras=lora_request.read(values["loras"]) if "loras" in values else None,
        **{name: optional(checks.text, name, values, limits) for name in SDXL_KEYS[:2]},
        **{name: optional(checks.two_integers, name, values) for name in SIZES},
    )


def seeds(first: int, number: int) -> list[int]:
    """Those of several pictures: one after the other, and 0 after the highest."""
    return [(first + i) % (MAX_SEED + 1) for i in range(number)]
