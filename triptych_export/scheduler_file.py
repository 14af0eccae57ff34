"""scheduler_config.json as diffusers' StableDiffusionPipeline takes it, not as it was saved."""

from __future__ import annotations


def as_in_pipeline(config: dict) -> dict:
    """The configuration that pictures are made with: old files lack what the pipeline then sets.

    It makes steps_offset 1 and clip_sample false, where the file or its class says otherwise
    (diffusers, pipelines/stable_diffusion/pipeline_stable_diffusion.py).
    """
    changed = {**config, "steps_offset": 1}
    clips_if_not_said = config.get("_class_name") in ("DDIMScheduler", "DDPMScheduler")
    if config.get("clip_sample", clips_if_not_said):
        changed["clip_sample"] = False
    return changed
