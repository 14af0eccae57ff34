"""LoRA files of random numbers, in each of the layouts that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODELS = Path(__file__).parents[1] / "model_repository"

ATTENTION = {
    f"down_blocks.{block}.attentions.0.transformer_blocks.0.attn{number}.{product}": (width, read)
    for block, width in ((1, 128), (2, 192))
    for number, reads in ((1, None), (2, 192))
    for product, read in (("to_q", width), ("to_k", reads or width), ("to_v", reads or width))
}
"""Some layers of the demo model's UNet: name -> [out, in]."""
CONVOLUTIONS = {
    "down_blocks.0.resnets.0.conv1": (64, 64, 3, 3),
    "down_blocks.1.attentions.0.proj_in": (128, 128, 1, 1),
    "up_blocks.0.upsamplers.0.conv": (192, 192, 3, 3),
}
TEXT = {
    "text_model.encoder.layers.0.self_attn.q_proj": (192, 192),
    "text_model.encoder.layers.1.mlp.fc1": (768, 192),
    "text_model.encoder.layers.2.self_attn.out_proj": (192, 192),
}
"""Of its text encoder, as every layout names them."""

_OLD = {"q_proj": "to_q_lora", "k_proj": "to_k_lora", "v_proj": "to_v_lora"}


def changes(
    seed: int, rank: int = 4, size: float = 1.5, unet=ATTENTION, text=TEXT, text_2=()
) -> dict:
    """(network, layer) -> (down, up), float32; the layers' ranks differ."""
    random = np.random.RandomState(seed)
    made = {}
    networks = {"unet": unet, "text_encoder": text, "text_encoder_2": dict(text_2)}
    for network, layers in networks.items():
        for number, (layer, (out, read, *window)) in enumerate(layers.items()):
            own = rank + number % 2
            down = random.standard_normal((own, read, *window))
            up = random.standard_normal((out, own, *[1] * len(window)))
            scale = size / np.sqrt(read * np.prod(window, initial=1))
            made[network, layer] = (scale * down).astype("f"), (scale * up * 8).astype("f")
    return made


def delta(down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """What a layer's weight is changed by, in float64."""
    product = up.reshape(len(up), -1).astype(np.float64) @ down.reshape(len(down), -1)
    return product.reshape(len(up), *down.shape[1:])


def tensors(made: dict, layout: str, alpha: float | None = None) -> dict[str, np.ndarray]:
    """The tensors of a file in the layout `kohya`, `diffusers`, `peft` or `old`."""
    found = {}
    xl = any(network == "text_encoder_2" for network, _ in made)
    prefixes = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_" if xl else "lora_te_",
        "text_encoder_2": "lora_te2_",
    }
    for (network, layer), (down, up) in made.items():
        if layout == "kohya":
            base = prefixes[network] + layer.replace(".", "_")
            names = f"{base}.lora_down.weight", f"{base}.lora_up.weight"
            if alpha is not None:
                found[f"{base}.alpha"] = np.array(alpha, np.float32)
        elif layout == "peft":
            base = f"{network}.{layer}"
            names = f"{base}.lora_A.weight", f"{base}.lora_B.weight"
        elif layout == "diffusers":
            kind = "lora" if network == "unet" else "lora_linear_layer"
            names = f"{network}.{layer}.{kind}.down.weight", f"{network}.{layer}.{kind}.up.weight"
        else:
            before, _, last = layer.replace(".to_out.0", ".to_out").rpartition(".")
            if network == "unet":
                base = f"unet.{before}.processor.{last}_lora"
            else:
                base = f"text_encoder.{before}.{_OLD.get(last, 'to_out_lora')}"
            names = f"{base}.down.weight", f"{base}.up.weight"
        found.update(zip(names, (down, up)))
    return found


def write(folder: Path, name: str, made: dict, layout: str = "kohya", alpha=None, **more) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file(tensors(made, layout, alpha), path, **more)
    return path
