"""scheduler_config.json as diffusers' pipelines take it, not as it was saved."""

from __future__ import annotations


def as_in_pipeline(config: dict, sdxl: bool, paints_in: bool) -> dict:
    """The configuration that pictures are made with: old files lack what the pipeline then sets.

    StableDiffusionPipeline makes steps_offset 1 and clip_sample false, where the file or its class
    says otherwise; StableDiffusionInpaintPipeline, where the UNet was made to paint in pictures,
    steps_offset 1 and skip_prk_steps true. Those of SDXL take the file as it is.
    """
    if sdxl:
        return config
    changed = {**config, "steps_offset": 1}
    name = config.get("_class_name")
    if paints_in:
        if not config.get("skip_prk_steps", name != "PNDMScheduler"):
            changed["skip_prk_steps"] = True
    elif config.get("clip_sample", name in ("DDIMScheduler", "DDPMScheduler")):
        changed["clip_sample"] = False
    return changed
