"""A model in diffusers' layout under the names that single files have."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def state_dict(folder: Path, vae: Path | None = None) -> dict[str, torch.Tensor]:
    """All weights of the model in `folder`, with another vae/ or not, as a single file has them."""
    vae_folder = vae or folder / "vae"
    unet = json.loads((folder / "unet" / "config.json").read_text())
    vae = json.loads((vae_folder / "config.json").read_text())
    blocks = len(vae["block_out_channels"])
    state = {}
    for name, value in _weights(folder / "unet").items():
        state["model.diffusion_model." + _unet(name, unet)] = value
    for name, value in _weights(vae_folder).items():
        new = _vae(name, blocks)
        # Attention was a convolution of one pixel.
        wide = ".attn_1." in new and new.endswith("weight") and ".norm." not in new
        state["first_stage_model." + new] = value[:, :, None, None] if wide else value
    if (folder / "text_encoder_2").is_dir():
        state.update(_clip(folder / "text_encoder", "conditioner.embedders.0."))
        state.update(_open_clip(folder / "text_encoder_2", "conditioner.embedders.1."))
    elif unet.get("use_linear_projection"):
        state.update(_open_clip(folder / "text_encoder", "cond_stage_model."))
    else:
        state.update(_clip(folder / "text_encoder", "cond_stage_model."))
    return {name: value.contiguous() for name, value in state.items()}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def _renamed(rest: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        if rest.startswith(old + "."):
            return new + rest[len(old) :]
    return rest


def _unet(name: str, config: dict) -> str:
    layers = config["layers_per_block"]
    kind, _, rest = name.partition(".")
    if kind == "mid_block":
        part, number, rest = rest.split(".", 2)
        if part == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(number)}.{_renamed(rest, RESNET)}"
    if kind not in ("down_blocks", "up_blocks"):
        return _renamed(name, UNET)
    block, part, number, rest = rest.split(".", 3)
    if kind == "down_blocks":
        at = 1 + int(block) * (layers + 1)
        if part == "downsamplers":
            return f"input_blocks.{at + layers}.0.op.{rest.removeprefix('conv.')}"
        place = f"input_blocks.{at + int(number)}"
    else:
        at = int(block) * (layers + 1)
        if part == "upsamplers":
            # After the block's last layer, and its attention where it has one.
            plain = config["up_block_types"][int(block)] == "UpBlock2D"
            return f"output_blocks.{at + layers}.{1 if plain else 2}.{rest}"
        place = f"output_blocks.{at + int(number)}"
    if part == "attentions":
        return f"{place}.1.{rest}"
    return f"{place}.0.{_renamed(rest, RESNET)}"


def _vae(name: str, blocks: int) -> str:
    half, _, rest = name.partition(".")
    if half not in ("encoder", "decoder"):
        return name
    rest = rest.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    kind, _, inner = rest.partition(".")
    if kind == "mid_block":
        part, number, inner = inner.split(".", 2)
        if part == "attentions":
            return f"{half}.mid.attn_1.{_renamed(inner, VAE_ATTENTION)}"
        return f"{half}.mid.block_{int(number) + 1}.{inner}"
    if kind in ("down_blocks", "up_blocks"):
        way = kind.partition("_")[0]
        block, part, number, inner = inner.split(".", 3)
        place = f"{half}.{way}.{block if way == 'down' else blocks - 1 - int(block)}"
        if part == f"{way}samplers":
            return f"{place}.{way}sample.{inner}"
        return f"{place}.block.{number}.{inner}"
    return f"{half}.{rest}"


def _text(folder: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("text_model."): value for name, value in _weights(folder).items()}


def _clip(folder: Path, place: str) -> dict[str, torch.Tensor]:
    return {f"{place}transformer.text_model.{name}": v for name, v in _text(folder).items()}


def _open_clip(folder: Path, place: str) -> dict[str, torch.Tensor]:
    text, prefix, layer = _text(folder), f"{place}model.", "encoder.layers."
    state = {
        prefix + "positional_embedding": text["embeddings.position_embedding.weight"],
        prefix + "token_embedding.weight": text["embeddings.token_embedding.weight"],
        prefix + "ln_final.weight": text["final_layer_norm.weight"],
        prefix + "ln_final.bias": text["final_layer_norm.bias"],
    }
    if "text_projection.weight" in text:
        state[prefix + "text_projection"] = text["text_projection.weight"].T
    for name, value in text.items():
        if not name.startswith(layer):
            continue
        number, rest = name[len(layer) :].split(".", 1)
        place = f"{prefix}transformer.resblocks.{number}."
        if rest.startswith("self_attn.q_proj."):
            kind = rest.rsplit(".", 1)[1]
            joined = [text[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            state[f"{place}attn.in_proj_{kind}"] = torch.cat(joined)
        elif not rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            state[place + _renamed(rest, OPEN_CLIP)] = value
    return state
