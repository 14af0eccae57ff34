"""The settings of a picture in the text that the Stable Diffusion WebUI writes into its files."""

from __future__ import annotations

from triptych import schedulers
from triptych.settings import Settings

LATENT_UPSCALERS = {
    "bilinear": "Latent",
    "bicubic": "Latent (bicubic)",
    "nearest": "Latent (nearest)",
    "nearest-exact": "Latent (nearest-exact)",
}
"""The WebUI's names for how latents are made larger, by torch's."""


def infotext(settings: Settings) -> str:
    """The prompt with its LoRAs, the negative prompt if there is one, and a line of other settings.

    The schedule is Uniform, the model's own, where the WebUI would otherwise take Karras.
    """
    entry = schedulers.entry(settings.scheduler)
    of_sampler = [one for one in schedulers.TABLE if one.sampler == entry.sampler]
    schedule = entry.schedule or ("Uniform" if len(of_sampler) > 1 else "Automatic")
    values = {
        "Steps": settings.num_inference_steps,
        "Sampler": entry.sampler,
        "Schedule type": schedule,
        "CFG scale": f"{settings.guidance_scale:g}",
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
    }
    if settings.model:
        values["Model"] = settings.model
    if settings.eta and entry.name == "ddim":
        values["Eta DDIM"] = f"{settings.eta:g}"
    if settings.strength is not None:
        values["Denoising strength"] = f"{settings.strength:g}"
    second = settings.second_pass
    if second is not None:
        values["Denoising strength"] = f"{second.strength:g}"
        values["Hires resize"] = f"{second.width}x{second.height}"
        values["Hires steps"] = schedulers.steps_made(second.num_inference_steps, second.strength)
        values["Hires upscaler"] = LATENT_UPSCALERS[second.interpolation]
    if settings.mask_blur is not None:
        values["Mask blur"] = f"{settings.mask_blur:g}"
    if settings.clip_skip:  # the WebUI counts from 1
        values["Clip skip"] = settings.clip_skip + 1
    tags = "".join(f" <lora:{lora.name}:{lora.scale:g}>" for lora in settings.loras or ())
    lines = [settings.prompt + tags]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in values.items()))
    return "\n".join(lines)
