"""The settings of one image: from the request's text, through every stage, into the picture."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triptych import schedulers
from triptych.errors import InvalidRequest
from triptych.json_object import json_object
from triptych.limits import WIDEST, Limits

OUTPUT_FORMATS = ("png", "jpeg", "webp")
MAX_SEED = 2**64 - 1
MAX_TIMEOUT = 1e6
"""Seconds that a request may have at the most; none is no limit."""


@dataclass(frozen=True)
class Defaults:
    """What a request gets that does not say otherwise: the served model's own values.

    `size_multiple`: what height and width must be multiples of, the VAE's factor.
    `scheduler_config`: what tells which of a diffusers class's schedulers its name means.
    """

    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str
    size_multiple: int = 8
    scheduler_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Everything that one image is made from, under diffusers' names; see `parse`.

    `timestep_spacing` is None where the model's own is meant, `eta` where the scheduler's is.
    `deadline`: when nobody waits for the image any more, in seconds of this machine's monotonic
    clock, which all stages share and no change of the time of day touches; it leaves no mark on the
    image.
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

    @property
    def expired(self) -> bool:
        """Whether the deadline is past."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def to_json(self) -> str:
        """The `settings` tensor that goes from stage to stage."""
        values = dataclasses.asdict(self).items()
        return json.dumps({name: value for name, value in values if value is not None})

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
            if _utf8(warning) is None:
                raise InvalidRequest("warnings", warning, "a list of texts")
        deadline = values.pop("deadline", None)
        if deadline is not None and not (_is_number(deadline) and math.isfinite(deadline)):
            raise InvalidRequest("deadline", deadline, "a time of the monotonic clock")
        for name in PICTURE_KEYS:
            if name not in values and name not in OPTIONAL_KEYS:
                raise InvalidRequest("settings", text, f"{whole}, with {name}")
        # A side's bounds of its own belong to the request; here any positive side will do.
        checked = _check(values, dataclasses.replace(limits, min_side=1), size_multiple=1)
        return dataclasses.replace(checked, warnings=tuple(warnings), deadline=deadline)


_NOT_ASKED_FOR = ("warnings", "deadline")
PICTURE_KEYS = tuple(
    field.name for field in dataclasses.fields(Settings) if field.name not in _NOT_ASKED_FOR
)
"""The settings that a request can give its picture."""

TEXT_KEYS = tuple(
    field.name for field in dataclasses.fields(Settings) if field.type in ("str", "str | None")
)
"""Those of them that are texts."""

OPTIONAL_KEYS = ("timestep_spacing", "eta")
"""Those of them that a picture may have been made without."""

REQUEST_KEYS = (*PICTURE_KEYS, "timeout")
"""All that a request's JSON object can hold."""


def parse(
    raw: bytes, defaults: Defaults, limits: Limits, parameters: Mapping[str, Any] | None = None
) -> Settings:
    """The settings that a request's INPUT_0 asks for.

    `raw` is UTF-8: a JSON object with keys of `REQUEST_KEYS`, of which only `prompt` is required,
    or any other text, which is then the prompt. Without a seed the settings get a random one;
    `timeout`, in seconds, gives them a deadline that long from now. `parameters` are those of
    Triton's protocol: keys of `PICTURE_KEYS` too, each of them here or in `raw`; numbers may be
    texts, since the protocol has no whole number over 2^63, and not everywhere a fraction.
    Raises InvalidRequest, and nothing else, for what cannot be served: also for a text that begins
    as a JSON object, or as a list of objects, and is none.
    """
    # A character of JSON is at most 12 bytes for 2 of UTF-16, 6 for one ASCII letter.
    most = 12 * limits.max_prompt_bytes + 4096
    if len(raw) > most:
        raise InvalidRequest("INPUT_0", raw, f"at most {most} bytes")
    text = _decode("INPUT_0", raw)
    asked = json_object(text, "INPUT_0", REQUEST_KEYS)
    if asked is None:
        if not text.strip():
            allowed = 'a text that is not blank; {"prompt": ""} for an empty prompt'
            raise InvalidRequest("prompt", text, allowed)
        asked = {"prompt": text}
    elif "prompt" not in asked:
        raise InvalidRequest("prompt", None, "a text; a JSON object must have a prompt")
    elif _is_request(asked["prompt"]):
        raise InvalidRequest("prompt", asked["prompt"], "a text, not a whole request in one")
    for name, value in (parameters or {}).items():
        if name in asked:
            raise InvalidRequest(name, value, "each key once, in INPUT_0 or as a parameter")
        if name not in PICTURE_KEYS:
            allowed = f"only the parameters {', '.join(PICTURE_KEYS)}"
            if name == "timeout":
                allowed = "in a JSON object in INPUT_0, in seconds; no parameter"
            raise InvalidRequest(name, value, allowed)
    values = {
        "negative_prompt": "",
        "num_inference_steps": defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale,
        "height": defaults.height,
        "width": defaults.width,
        "scheduler": defaults.scheduler,
        "output_format": OUTPUT_FORMATS[0],
    }
    values.update(asked)
    values.update({name: _number(name, value) for name, value in (parameters or {}).items()})
    if "seed" not in values:
        values["seed"] = secrets.randbits(32)
    deadline = _deadline(values.pop("timeout")) if "timeout" in values else None
    settings = _check(values, limits, defaults.size_multiple, defaults.scheduler_config)
    return dataclasses.replace(settings, deadline=deadline)


def _number(name: str, value: Any) -> Any:
    """The value of a parameter, a number for the text of one where the setting is no text."""
    if name in TEXT_KEYS or not isinstance(value, str):
        return value
    if re.fullmatch(r"-?[0-9]{1,20}", value):
        return int(value)
    is_real = re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,2})?", value)
    return float(value) if is_real else value


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
    prompt = _text("prompt", values["prompt"], limits)
    steps, guidance = values["num_inference_steps"], values["guidance_scale"]
    width = _side("width", values["width"], limits.max_pixels, limits, size_multiple)
    height = _side("height", values["height"], limits.max_pixels // width, limits, size_multiple)
    return Settings(
        prompt=prompt,
        negative_prompt=_text("negative_prompt", values["negative_prompt"], limits),
        num_inference_steps=_integer("num_inference_steps", steps, limits.max_num_inference_steps),
        guidance_scale=_real("guidance_scale", guidance, limits.max_guidance_scale),
        seed=_integer("seed", values["seed"], MAX_SEED, low=0),
        height=height,
        width=width,
        scheduler=_scheduler(values["scheduler"], scheduler_config or {}),
        output_format=_one_of("output_format", values["output_format"], OUTPUT_FORMATS),
        timestep_spacing=_spacing(values),
        eta=_real("eta", values["eta"], 1) if "eta" in values else None,
    )


def _text(field: str, value: Any, limits: Limits) -> str:
    utf8 = _utf8(value)
    if utf8 is None or b"\0" in utf8 or len(utf8) > limits.max_prompt_bytes:
        allowed = f"a text of at most {limits.max_prompt_bytes} bytes of UTF-8, without NUL"
        raise InvalidRequest(field, value, allowed)
    return value


def _utf8(value: Any) -> bytes | None:
    """The bytes of a text; None for no text, or with half a surrogate pair, as JSON can escape."""
    try:
        return value.encode() if isinstance(value, str) else None
    except UnicodeEncodeError:
        return None


def _integer(field: str, value: Any, high: int, low: int = 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(field, value, f"an integer from {low} to {high}")
    return value


def _real(field: str, value: Any, high: float) -> float:
    if not _is_number(value) or not 0 <= value <= high:
        raise InvalidRequest(field, value, f"a number from 0 to {high}")
    return float(value)


def _deadline(timeout: Any) -> float:
    if not _is_number(timeout) or not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidRequest("timeout", timeout, f"seconds, over 0 to {MAX_TIMEOUT:.0f}")
    return time.monotonic() + timeout


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _side(field: str, value: Any, high: int, limits: Limits, multiple: int) -> int:
    most = min(getattr(limits, f"max_{field}"), limits.max_pixels // limits.min_side)
    fits = type(value) is int and limits.min_side <= value <= min(most, high)
    if not fits or value % multiple:
        allowed = f"a multiple of {multiple} from {limits.min_side} to {most}"
        allowed += f", with height * width at most {limits.max_pixels}"
        raise InvalidRequest(field, value, allowed)
    return value


def _one_of(field: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequest(field, value, f"one of {', '.join(choices)}")
    return value


def _spacing(values: dict[str, Any]) -> str | None:
    if "timestep_spacing" not in values:
        return None
    return _one_of("timestep_spacing", values["timestep_spacing"], schedulers.SPACINGS)


def _scheduler(value: Any, config: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        raise InvalidRequest("scheduler", value, schedulers.ALLOWED)
    return schedulers.resolve(value, config)
