"""The networks of SDXL's base model, its layers and widths, with random weights."""

from __future__ import annotations

from typing import Any

from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from benchmarks import sd15


def networks() -> dict[str, Any]:
    """Both text encoders, `unet` and `vae`, as StableDiffusionXLPipeline takes them.

    The VAE is one that half precision holds, as those are that were repaired for it.
    """
    text_encoder_2 = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=1280,
            intermediate_size=5120,
            num_hidden_layers=32,
            num_attention_heads=20,
            projection_dim=1280,
            hidden_act="gelu",
        )
    )
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return {
        "text_encoder": sd15.clip(),
        "text_encoder_2": text_encoder_2,
        "unet": unet,
        "vae": sd15.vae(sample_size=1024, scaling_factor=0.13025, force_upcast=False),
    }
