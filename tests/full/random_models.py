"""Random models in the diffusers layout, for tests of the export."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from benchmarks import sd15, sdxl

MERGES = ["r e", "re d</w>", "b l", "u e</w>", "bl ue</w>"]


def write_model(
    folder: Path,
    second: bool = False,
    widths=(32, 64, 64),
    time_cond_proj_dim: int | None = None,
    added: tuple[str, ...] = (),
    in_channels: int = 4,
) -> Path:
    """A small Stable Diffusion with random weights in `folder`, as diffusers saves it.

    second: with what sets Stable Diffusion 2.x apart from 1.x. widths: the UNet's channels.
    time_cond_proj_dim: of a latent consistency model. added: tokens beside the vocabulary, as
    textual inversion adds them. in_channels: of the UNet, 9 for one that paints in pictures.
    """
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder)
    last = len(tokenizer) - 1
    tokenizer.add_tokens(list(added))
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=last - 1,
            eos_token_id=last,
            pad_token_id=last,
            hidden_act="gelu" if second else "quick_gelu",
        )
    )
    unet = UNet2DConditionModel(
        sample_size=48 if second else 32,
        in_channels=in_channels,
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=[2, 4, 4] if second else 4,
        use_linear_projection=second,
        time_cond_proj_dim=time_cond_proj_dim,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    if time_cond_proj_dim is not None:
        # As it begins, guidance moves no picture by 40 dB.
        unet.time_embedding.cond_proj.weight.data *= 30
    vae = _vae()
    prediction = "v_prediction" if second else "epsilon"
    return _save(folder, tokenizer, text_encoder, unet, vae, prediction)


def write_sdxl(
    folder: Path,
    in_channels: int = 4,
    legacy: bool = False,
    force_zeros: bool = True,
    projection_dim: int = 48,
) -> Path:
    """A small model of SDXL's layout with random weights in `folder`, as diffusers saves it.

    in_channels: of the UNet, 9 for one that paints in pictures. legacy: the end token is found as
    in SDXL's own text encoders, whose configurations name a number that it has not. projection_dim:
    width of the pooled prompt; diffusers reads single files where it is the embeddings', 64.
    """
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder)
    last = len(tokenizer) - 1
    shared = {
        "vocab_size": len(tokenizer),
        "num_attention_heads": 4,
        "bos_token_id": last - 1,
        "eos_token_id": 2 if legacy else last,
        "pad_token_id": last,
    }
    first = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, projection_dim=32, **shared
        )
    )
    second = CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            projection_dim=projection_dim,
            hidden_act="gelu",
            **shared,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=in_channels,
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=projection_dim + 6 * 8,
        transformer_layers_per_block=[1, 2],
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    # As it begins, the sizes and the pooled prompt move no picture by 40 dB.
    unet.add_embedding.linear_2.weight.data *= 30
    return _save_sdxl(folder, tokenizer, first, second, unet, _vae(), force_zeros)


def write_full_size(folder: Path) -> Path:
    """A model with the layers and widths of Stable Diffusion 1.5 and random weights."""
    torch.manual_seed(0)
    return _save(folder, _tokenizer(folder), **sd15.networks(), prediction="epsilon")


def write_full_size_sdxl(folder: Path) -> Path:
    """A model with the layers and widths of SDXL and random weights."""
    torch.manual_seed(0)
    return _save_sdxl(folder, _tokenizer(folder), **sdxl.networks(), force_zeros=True)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=256,
        layers_per_block=1,
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.5,
    )


def _save(folder, tokenizer, text_encoder, unet, vae, prediction: str) -> Path:
    # As it begins, a chunk's embeddings have the mean 0, which weights of words are divided by.
    norm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    norm.bias.data.uniform_(0, 1)
    noise = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction,
    )
    pipeline = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, noise, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)
    return folder


def _save_sdxl(
    folder, tokenizer, text_encoder, text_encoder_2, unet, vae, force_zeros: bool
) -> Path:
    tokenizer_2 = _tokenizer(folder)
    tokenizer_2.pad_token = tokenizer.convert_ids_to_tokens(0)
    noise = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    pipeline = StableDiffusionXLPipeline(
        vae,
        text_encoder,
        text_encoder_2,
        tokenizer,
        tokenizer_2,
        unet,
        noise,
        force_zeros_for_empty_prompt=force_zeros,
    )
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> CLIPTokenizer:
    letters = [chr(code) for code in range(256, 512)]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in MERGES]
    tokens += ["r", "e", "d</w>", "b", "l", "u", "e</w>", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    merges.write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    tokenizer = CLIPTokenizer(str(vocab), str(merges), model_max_length=77)
    vocab.unlink()
    merges.unlink()
    return tokenizer


def louder(model: Path) -> Path:
    """That model, its VAE changed so that latents and pictures show in one another."""
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae")
    with torch.no_grad():
        vae.decoder.conv_out.weight *= 8
        vae.encoder.conv_out.weight *= 4
    vae.save_pretrained(model / "vae")
    return model
