"""The demo model's networks: Stable Diffusion v1.5's classes, with small sizes."""

from __future__ import annotations

PICTURE_SIZE = 256
UNET = {
    "sample_size": PICTURE_SIZE // 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 192),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 192,
    "attention_head_dim": 8,
}
VAE = {
    "sample_size": PICTURE_SIZE,
    "block_out_channels": (32, 64, 128, 128),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 16,
}
TEXT_ENCODER = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 192,
}
# Stable Diffusion's noise, so that every scheduler that draws well with its models does so here.
# v-prediction stays well conditioned where a step is nearly all noise.
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "solver_order": 2,
    "set_alpha_to_one": True,
    "clip_sample": False,
    "skip_prk_steps": True,
}
NUM_INFERENCE_STEPS = 20
GUIDANCE_SCALE = 2.0
