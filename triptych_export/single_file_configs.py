"""The small files that a model in a single file lacks: facts of Stable Diffusion 1.x, 2.x and XL.

`write_configs` writes them as a folder in diffusers' layout without weights, which diffusers' own
loader of single files takes as its `config`.
"""

from __future__ import annotations

import gzip
import json
from importlib import resources
from pathlib import Path
from typing import Any

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
START, END = "<|startoftext|>", "<|endoftext|>"
FIRST_TOKEN = "!"
"""What pads prompts for OpenCLIP's text encoders, which are padded with the number 0."""
UNET = {
    "act_fn": "silu",
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "layers_per_block": 2,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "out_channels": 4,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
VAE = {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "scaling_factor": 0.18215,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_ENCODER = {
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "pad_token_id": 1,
    "vocab_size": 49408,
}
CLIP = {
    "architectures": ["CLIPTextModel"],
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
"""OpenAI's CLIP ViT-L/14."""
OPEN_CLIP = {
    "architectures": ["CLIPTextModel"],
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
}
"""OpenCLIP's ViT-H/14 without its last layer."""
LARGE_OPEN_CLIP = {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
"""OpenCLIP's ViT-bigG/14."""
FIRST = {
    "unet": {"attention_head_dim": 8, "cross_attention_dim": 768},
    "text_encoders": {"text_encoder": CLIP},
    "pad_tokens": {"tokenizer": END},
}
"""Stable Diffusion 1.x."""
SECOND = {
    "unet": {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "text_encoders": {"text_encoder": OPEN_CLIP},
    "pad_tokens": {"tokenizer": FIRST_TOKEN},
}
"""Stable Diffusion 2.x."""
XL = {
    "model_index": {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    },
    "unet": {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "use_linear_projection": True,
    },
    "vae": {"scaling_factor": 0.13025},
    "text_encoders": {"text_encoder": CLIP, "text_encoder_2": LARGE_OPEN_CLIP},
    "pad_tokens": {"tokenizer": END, "tokenizer_2": FIRST_TOKEN},
    "scheduler": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
}
"""SDXL's base model."""
KINDS = {768: FIRST, 1024: SECOND, 2048: XL}
"""By the width of the text embeddings that the UNet attends to."""
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def write_configs(
    folder: Path, text_width: int, in_channels: int, side: int, scheduler: dict[str, Any]
) -> None:
    """Write the configurations and the tokenizers of a Stable Diffusion to `folder`.

    text_width: of the embeddings that the UNet attends to, one of `KINDS`. in_channels: of the
    UNet. side: pixels of the usual picture. scheduler: what its configuration says beside the
    usual.
    """
    kind = KINDS[text_width]
    vocabulary, merges = clip_vocabulary()
    files = {
        "model_index.json": {**INDEX, **kind.get("model_index", {})},
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            **UNET,
            **kind["unet"],
            "in_channels": in_channels,
            "sample_size": side // 8,
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            **VAE,
            **kind.get("vae", {}),
            "sample_size": side,
        },
        "scheduler/scheduler_config.json": {**SCHEDULER, **kind.get("scheduler", {}), **scheduler},
    }
    for part, config in kind["text_encoders"].items():
        files[f"{part}/config.json"] = {**TEXT_ENCODER, **config}
    for part, pad in kind["pad_tokens"].items():
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
        files[f"{part}/tokenizer_config.json"] = {
            "tokenizer_class": "CLIPTokenizer",
            "do_lower_case": True,
            "model_max_length": 77,
            **special,
        }
        files[f"{part}/special_tokens_map.json"] = special
        files[f"{part}/vocab.json"] = vocabulary
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    for part in kind["pad_tokens"]:
        (folder / part / "merges.txt").write_text(merges, encoding="utf-8")


def clip_vocabulary() -> tuple[dict[str, int], str]:
    """CLIP's tokens with their numbers, and merges.txt.

    A token is a character that stands for a byte, such a one at a word's end, or the join of two
    tokens; they are numbered in that order, and the two that begin and end a text come last.
    """
    packed = (resources.files(__package__) / "clip" / "merges.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode("utf-8")
    letters = _characters_of_bytes()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [pair.replace(" ", "") for pair in merges.splitlines()]
    tokens += [START, END]
    return {token: number for number, token in enumerate(tokens)}, "#version: 0.2\n" + merges


def _characters_of_bytes() -> list[str]:
    """Bytes that print stand for themselves; the others get characters from number 256 on."""
    printed = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printed)
    return [chr(code) for code in (*printed, *range(256, 256 + others))]
