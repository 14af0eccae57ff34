"""The networks that are exported: their tensors, the axes that vary, and inputs to check with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from triptych_export.families import SIZES
from triptych_export.source import Source


@dataclass(frozen=True)
class Stage:
    """One network. Tensor names are those of the served model; axes that vary have names."""

    name: str
    inputs: dict[str, tuple[str | int, ...]]
    output: str
    output_axes: tuple[str | int, ...]
    more_outputs: dict[str, tuple[str | int, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> dict[str, tuple[str | int, ...]]:
        """All outputs, `output` first."""
        return {self.output: self.output_axes, **self.more_outputs}


def stages(source: Source) -> dict[str, Stage]:
    """The four networks of Stable Diffusion, or the five of SDXL, by name."""
    size, picture_size = ("height", "width"), ("picture_height", "picture_width")
    if source.fixed_size:
        size = source.sample_size
        picture_size = tuple(source.vae_scale_factor * side for side in size)
    latent = ("batch", source.latent_channels, *size)
    moments = ("batch", 2 * source.latent_channels, *size)
    picture = ("batch", 3, *picture_size)
    embeds = ("batch", "length", source.hidden_size)
    unet_inputs = {"sample": latent, "timestep": ("batch",), "encoder_hidden_states": embeds}
    if source.paints_in:
        unet_inputs["mask"] = ("batch", 1, *size)
        unet_inputs["masked_image_latents"] = latent
    if source.time_cond_proj_dim is not None:
        unet_inputs["timestep_cond"] = ("batch", source.time_cond_proj_dim)
    texts = {"input_ids": ("batch", "length")}
    if source.text_encoder_layers is not None:
        texts = {**texts, "prompt_weights": ("batch", "length"), "clip_skip": ("batch", 1)}
    second, encoders = source.second_encoder, []
    if second is not None:
        unet_inputs["text_embeds"] = ("batch", second.projection_dim)
        unet_inputs["time_ids"] = ("batch", SIZES)
        pooled = {"text_embeds": ("batch", second.projection_dim)}
        wide = (*embeds[:2], second.hidden_size)
        encoders.append(Stage("text_encoder_2", texts, "last_hidden_state", wide, pooled))
        embeds = (*embeds[:2], source.hidden_size - second.hidden_size)
    all_stages = (
        Stage("text_encoder", texts, "last_hidden_state", embeds),
        *encoders,
        Stage(
            "unet",
            unet_inputs,
            "out_sample",
            latent,
        ),
        Stage("vae_decoder", {"latent_sample": latent}, "sample", picture),
        Stage("vae_encoder", {"sample": picture}, "latent_parameters", moments),
    )
    return {stage.name: stage for stage in all_stages}


def example(
    stage: Stage, source: Source, batch: int, height: int, width: int, seed: int, chunks: int = 1
) -> dict:
    """Inputs for `stage`, drawn by `seed`: latents of height and width, timesteps that differ.

    chunks: of a prompt's tokens, where the text encoder takes several.
    """
    random = np.random.RandomState(seed)
    scale = source.vae_scale_factor
    sizes = {
        "batch": batch,
        "height": height,
        "width": width,
        "length": source.text_length * (1 if source.text_encoder_layers is None else chunks),
        "picture_height": height * scale,
        "picture_width": width * scale,
    }
    inputs = {}
    for name, axes in stage.inputs.items():
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in axes]
        if name == "input_ids":
            inputs[name] = random.randint(0, source.vocab_size, shape, np.int32)
        elif name == "clip_skip":
            inputs[name] = random.randint(0, source.text_encoder_layers, shape, np.int32)
        elif name == "prompt_weights":
            # A network that was never trained has embeddings of mean 0, which no weight restores.
            inputs[name] = np.ones(shape, np.float32)
        elif name == "timestep":
            inputs[name] = random.uniform(1, 999, shape).astype(np.float32)
        else:
            inputs[name] = random.standard_normal(shape).astype(np.float32)
    return inputs


def examples_to_check(stage: Stage, source: Source) -> list[dict]:
    """Inputs of three calls that differ in batch, height and width, and in chunks of tokens.

    Two of the sizes cannot be halved evenly as often as the UNet halves them. All are small, so
    that a full-size model is checked in seconds; a graph that is right for all three has no size
    written into it.
    """
    sizes = ((1, 16, 24), (2, 17, 13), (3, 11, 22))
    return [example(stage, source, *size, seed, seed + 1) for seed, size in enumerate(sizes)]
