"""What a file of weights is, from its first bytes and the names of its tensors, before it is read.

A single file (.safetensors or .ckpt) holds all networks of a model under the names that they had
when they were trained. Whatever else people have in such files is refused under its own name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from triptych_export.errors import ExportError

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
UNET_TEXT = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
TEXT_ENCODER = "cond_stage_model."
SDXL_TEXT_ENCODERS = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
VAE = "first_stage_model."

_OTHERS = (
    (r"(^|\.)double_blocks\.\d+\.img_attn\.", "a FLUX model"),
    (r"(^|\.)joint_blocks\.\d+\.", "a Stable Diffusion 3 model"),
    (r"^conditioner\.embedders\.", "SDXL's text encoders without its UNet"),
    (r"motion_modules\.", "a motion module of AnimateDiff"),
    (r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet"),
    (r"^(image_proj|ip_adapter)(\.|$)", "an IP-Adapter"),
    (r"\.(hada_w1_a|lokr_w1|lokr_w1_a|oft_blocks)$", "a LyCORIS adapter"),
    (r"(^lora_(unet|te\d?)_|[._]lora[._](up|down|A|B)[._]|\.lora_[AB]\.)", "a LoRA"),
    (r"^(emb_params|string_to_param|\*|clip_[lg])$|^<[^<>]+>$", "a textual inversion embedding"),
    (r"^(decoder|encoder)\.(conv_in|mid|up_blocks|mid_block)[.\d]", "a VAE"),
    (r"^(text_model|transformer\.text_model)\.", "a text encoder"),
    (r"^(down_blocks|up_blocks)\.\d+\.", "a UNet in diffusers' layout"),
    (
        r"(^|\.)(transformer_blocks|single_transformer_blocks|layers)\.\d+\.",
        "a diffusion transformer",
    ),
)
"""What names of tensors tell of files that are no Stable Diffusion; the first that fits is said."""

_NOT_SERVED = (
    (r"^conditioner\.embedders\.0\.model\.", "SDXL's refiner"),
    (r"^edm_", "a model for EDM's schedulers, as Playground 2.5 and CosXL are"),
)
"""What they tell of whole models that have SDXL's layout and are not served."""

_HEADS = (
    (
        rb"\s*<(!doctype|html|head|\?xml)",
        "an HTML page, not weights: download it with its real link",
    ),
    (rb"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` brings the weights"),
    (rb"GGUF", "a GGUF file: quantised weights of another program"),
    (rb"\s*\{\s*\"", "a JSON text, not weights"),
)
"""What first bytes tell; a .safetensors file begins with the length of its header."""


def is_weights_file(path: Path) -> bool:
    """Whether `path` is a file of weights instead of a folder or a hub's name."""
    return path.is_file() or (path.suffix in SUFFIXES and not path.is_dir())


def require_weights(path: Path) -> None:
    """ExportError if the file's first bytes, or its size, are those of something else."""
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ExportError(f"{path} is empty")
    for pattern, meaning in _HEADS:
        if re.match(pattern, head, re.IGNORECASE):
            raise ExportError(f"{path} is {meaning}")


def refuse_at_sight(path: Path, vae: bool) -> None:
    """ExportError if the file is not worth loading what can read all of it; see `text_width`."""
    require_weights(path)
    if path.suffix == ".safetensors":
        text_width(path, safetensors_shapes(path), vae)


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a .safetensors file, name to shape, from its header alone.

    ExportError for a file that is cut off or is none.
    """
    require_weights(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ExportError(f"{path} is cut off, or no .safetensors file: {size} bytes")
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ExportError(f"{path} is no .safetensors file: {error}") from None
    missing = 8 + length + end - size
    if missing > 0:
        raise ExportError(f"{path} is cut off: {missing} of {8 + length + end} bytes are missing")
    return shapes


def what_else(names: Collection[str]) -> str | None:
    """What a file with these tensors is, if it is no Stable Diffusion 1.x, 2.x or XL."""
    for pattern, meaning in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            return meaning
    return None


def is_sdxl(names: Collection[str]) -> bool:
    """Whether a file with these tensors has SDXL's two text encoders."""
    return all(any(name.startswith(one) for name in names) for one in SDXL_TEXT_ENCODERS)


def text_width(path: Path, shapes: Mapping[str, tuple[int, ...]], vae: bool) -> int:
    """The width of the text embeddings that the UNet in the file attends to.

    vae: whether the file must have a VAE. ExportError, with the name of what the file is, where it
    is no whole Stable Diffusion 1.x, 2.x or XL.
    """
    if UNET_INPUT not in shapes:
        meaning = what_else(shapes) or "not a file that this export knows"
        raise ExportError(
            f"{path} is {meaning}; what is exported is a Stable Diffusion 1.x, 2.x or XL in one "
            "file, with its UNet, text encoder and VAE, or a folder in diffusers' layout"
        )
    for pattern, meaning in _NOT_SERVED:
        if any(re.search(pattern, name) for name in shapes):
            raise ExportError(f"{path} is {meaning}, which is not served")
    if not is_sdxl(shapes) and not any(name.startswith(TEXT_ENCODER) for name in shapes):
        raise ExportError(
            f"{path} has a UNet and no text encoder (cond_stage_model; SDXL's two are "
            "conditioner.embedders.0 and 1): it is a part"
        )
    if vae and not any(name.startswith(VAE) for name in shapes):
        raise ExportError(f"{path} has no VAE (first_stage_model): give one with --vae")
    for block in range(1, 5):
        if UNET_TEXT.format(block) in shapes:
            return shapes[UNET_TEXT.format(block)][-1]
    raise ExportError(f"{path}: its UNet attends to no text")
