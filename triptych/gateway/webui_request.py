"""What a client of the WebUI asks for, as requests to the server.

A field that would change the picture and cannot be done here is refused by name unless its value
is neutral; a field that is not known is ignored.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from triptych.errors import shorten
from triptych.gateway.errors import Problem
from triptych.gateway.fields import (
    Guidance,
    Negative,
    Ours,
    Prompt,
    Side,
    Steps,
    only,
    whole,
)
from triptych.gateway.samplers import LABELS, SCHEDULES, scheduler_of
from triptych.limits import MAX_CLIP_SKIP
from triptych.schedulers import entry, resolve
from triptych.settings import MAX_SEED, seeds

EMPTY = (None, "", [], {}, False)
FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
_ETA_1 = ("Euler a", "DPM2 a", "DPM++ 2M SDE")
"""The samplers that read the WebUI's `eta` and have no other here; DDIM and TCD read it too."""

_NEUTRAL_OVERRIDES = {
    "sd_vae": ("Automatic", "None"),
    "eta_noise_seed_delta": (0,),
    "s_noise": (1,),
    "randn_source": ("CPU",),
}
_ABOUT_FILES = (
    *("save_", "samples_", "grid_", "return_", "outdir_", "directories_", "enable_pnginfo"),
    *("show_progress", "live_preview", "do_not_", "add_", "jpeg_quality", "webp_"),
)
"""How the names of those options of the WebUI begin that say nothing of what is drawn."""


def or_else(default: Any) -> Any:
    """Have null mean `default`."""
    return BeforeValidator(lambda value: default if value is None else value)


class Asked(Ours):
    """What every request for pictures may say; fields that are not here are ignored."""

    model_config = ConfigDict(extra="ignore")

    prompt: Annotated[Prompt, or_else("")] = ""
    negative_prompt: Annotated[Negative, or_else("")] = ""
    steps: Steps | None = None
    cfg_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    seed: whole(-1, MAX_SEED) | None = -1
    sampler_name: str | None = Field(None, description=", ".join(LABELS.values()))
    sampler_index: str | None = Field(None, description="The older name of sampler_name")
    scheduler: str | None = Field(None, description=", ".join(SCHEDULES.values()))
    batch_size: Annotated[whole(1, 8), or_else(1)] = 1
    n_iter: Annotated[whole(1, 8), or_else(1)] = 1
    send_images: bool | None = True
    override_settings: dict[str, Any] | None = Field(
        None,
        description="sd_model_checkpoint: a model; samples_format: png, jpg or webp; others must "
        "be neutral",
    )
    force_task_id: str | None = Field(
        None, max_length=200, description="A name for the request, to ask /internal/progress for"
    )
    eta: float | None = Field(None, description="0 to 1 with DDIM, 1 with Euler a")
    clip_skip: whole(0, MAX_CLIP_SKIP + 1) | None = Field(
        None, description="The WebUI's count: 1 is the text encoder's last layer, 2 the one before"
    )
    restore_faces: only(None, False) = None
    tiling: only(None, False) = None
    subseed_strength: only(None, 0) = None
    seed_resize_from_h: only(None, 0, -1) = None
    seed_resize_from_w: only(None, 0, -1) = None
    s_churn: only(None, 0) = None
    s_noise: only(None, 1) = None
    s_min_uncond: only(None, 0) = None
    refiner_checkpoint: only(None, "", "None") = None
    script_name: only(None, "", "None") = None
    styles: only(None, []) = None
    alwayson_scripts: only(None, {}) = None
    infotext: only(None, "") = None

    @property
    def count(self) -> int:
        """How many pictures."""
        return self.batch_size * self.n_iter


NAMES = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "scheduler": "sampler_name",
    "image": "init_images",
    "mask_image": "mask",
    "strength": "denoising_strength",
    "padding_mask_crop": "inpaint_full_res_padding",
}
"""The WebUI's names of fields by the server's."""


def requests_of(asked: Asked) -> tuple[list[dict[str, Any]], list[str]]:
    """What the client is to be asked for each picture, and what was not as the request said.

    Raises Problem 400 for what cannot be.
    """
    overrides = _overrides(asked.override_settings or {})
    sampler = asked.sampler_name or asked.sampler_index
    scheduler, warnings = scheduler_of(sampler, asked.scheduler)
    reads_eta = entry(resolve(scheduler)).sampler if scheduler else None
    if asked.eta not in (None, 1) and reads_eta in _ETA_1:
        allowed = f"1 with {reads_eta}, or null"
        raise Problem(400, f"eta: got {asked.eta:g}; allowed: {allowed}", "eta")
    if asked.eta is not None and scheduler is None:
        warnings.append("eta: not used without sampler_name")
    last_layer = overrides.get("CLIP_stop_at_last_layers", asked.clip_skip) or 1
    settings = {
        "model": overrides.get("sd_model_checkpoint"),
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt,
        "num_inference_steps": asked.steps,
        "guidance_scale": asked.cfg_scale,
        **{name: getattr(asked, name) for name in Ours.model_fields},
        "width": asked.width,
        "height": asked.height,
        "scheduler": scheduler,
        "eta": asked.eta if reads_eta in ("DDIM", "TCD") else None,
        "output_format": overrides.get("samples_format"),
        "prompt_syntax": "webui",
        "clip_skip": last_layer - 1 or None,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    seed = secrets.randbits(32) if asked.seed in (None, -1) else asked.seed
    return [{**settings, "seed": one} for one in seeds(seed, asked.count)], warnings


def _overrides(given: dict[str, Any]) -> dict[str, Any]:
    """What the WebUI's options say that can be done; Problem 400 for one that is not neutral."""
    done = {}
    for name, value in given.items():
        allowed: tuple = _NEUTRAL_OVERRIDES.get(name, ())
        if name == "samples_format" and value not in EMPTY:
            allowed = tuple(FORMATS)
            done[name] = FORMATS.get(value) if isinstance(value, str) else None
        if name == "sd_model_checkpoint" and isinstance(value, str) and value:
            done[name] = value  # whether it is there, the server knows
            continue
        if name == "CLIP_stop_at_last_layers":
            allowed = tuple(range(MAX_CLIP_SKIP + 2))
            done.update({name: value} if type(value) is int else {})
        if value in (*EMPTY, *allowed) or (not allowed and name.startswith(_ABOUT_FILES)):
            continue
        field = f"override_settings.{name}"
        shown = ", ".join(shorten(one) for one in allowed) or "nothing: it cannot be set here"
        raise Problem(400, f"{shorten(field, 80)}: got {shorten(value)}; allowed: {shown}", field)
    return done
