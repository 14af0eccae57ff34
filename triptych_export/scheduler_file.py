"""scheduler_config.json as diffusers' pipelines take it, not as it was saved."""

from __future__ import annotations

from triptych_export.families import INPAINT

UNCLIPPED = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipelineLegacy",
    "OnnxStableDiffusionPipeline",
)
"""Pipelines that set clip_sample to false."""


def as_in_pipeline(config: dict, pipeline: str) -> dict:
    """The configuration that pictures are made with: old files lack what the pipeline then sets.

    pipeline: its class. Those in `UNCLIPPED` make steps_offset 1 and clip_sample false, where the
    file or its class says otherwise; StableDiffusionInpaintPipeline steps_offset 1 and
    skip_prk_steps true. Those of SDXL, of latent consistency models and of FastDeploy take the file
    as it is.
    """
    if pipeline not in (*UNCLIPPED, INPAINT):
        return config
    changed = {**config, "steps_offset": 1}
    name = config.get("_class_name")
    if pipeline == INPAINT:
        if not config.get("skip_prk_steps", name != "PNDMScheduler"):
            changed["skip_prk_steps"] = True
    elif config.get("clip_sample", name in ("DDIMScheduler", "DDPMScheduler")):
        changed["clip_sample"] = False
    return changed
