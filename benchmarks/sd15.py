"""The networks of Stable Diffusion 1.5, its layers and widths, with random weights."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel


def networks() -> dict[str, Any]:
    """`text_encoder`, `unet` and `vae`, as StableDiffusionPipeline takes them."""
    text_encoder = clip()
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return {"text_encoder": text_encoder, "unet": unet, "vae": vae(sample_size=512)}


def clip() -> CLIPTextModel:
    """The text encoder, which is SDXL's first one too."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
        )
    )


def vae(**config: Any) -> AutoencoderKL:
    """The VAE, whose layers and widths are SDXL's too, with more of a configuration."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        **config,
    )
