"""The names of a LoRA file's tensors, as kohya's scripts, diffusers and PEFT write them.

Each says a network, a layer in it and a part of the layer's change:

    lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight      kohya
    unet.down_blocks.0.attentions.0.proj_in.lora.down.weight           diffusers
    unet.down_blocks.0.attentions.0.proj_in.lora_A.weight              PEFT
    down_blocks.0.attentions.0...attn1.processor.to_q_lora.up.weight   diffusers before PEFT
"""

from __future__ import annotations

import re
from typing import NamedTuple

from triptych.errors import shorten

TENSOR = re.compile(
    r"""(?P<layer>.+?)(?:
        \.lora_(?P<kohya>down|up|mid)\.weight
        | (?:\.lora|_lora|\.lora_linear_layer)\.(?P<diffusers>down|up)\.weight
        | \.lora_(?P<peft>[AB])(?:\.(?!weight)\w+)?\.weight
        | \.(?P<alpha>alpha)
    )$""",
    re.VERBOSE,
)
_PREFIXES = re.compile(
    r"^(?:base_model\.model\.)?(?:lora_unet_|unet\.|(?P<text>lora_te1?_|text_encoder\.))?"
)
_UNET = re.compile(r"^(?:down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding)[._]")
_FIRST_PROCESSORS = {
    "to_q_lora": "q_proj",
    "to_k_lora": "k_proj",
    "to_v_lora": "v_proj",
    "to_out_lora": "out_proj",
}
"""What diffusers called a text encoder's layers before it had PEFT."""

OTHER_KINDS = (
    (r"\.(?:dora_scale|lora_magnitude_vector)", "DoRA"),
    (r"\.hada_", "LoHa"),
    (r"\.lokr_", "LoKr"),
    (r"\.(?:on_input|ia3_)", "(IA)3"),
    (r"\.(?:oft_|boft_)", "OFT"),
    (r"\.(?:a1|a2|b1|b2)\.weight$", "GLoRA"),
    (r"\.diff(?:_b)?$", "whole differences of weights"),
    (r"\.lora_(?:B|up)(?:\.\w+)?\.bias$", "LoRA with biases"),
    (r"^(?:bundle_emb|emb_params|clip_[lg]$|string_to_param)", "textual inversion"),
    (r"^model\.diffusion_model\.|^first_stage_model\.", "a whole model"),
)
"""Patterns of tensors' names that belong to something else, and what that is called."""


class Part(NamedTuple):
    """`part` is `down`, `up`, `mid` or `alpha`, of the layer `layer` of `network`."""

    network: str
    layer: str
    part: str


def read(name: str) -> Part | None:
    """What a tensor's name says, None if it belongs to no network that is served.

    Raises ValueError for a tensor that belongs to no LoRA, with the name of what it belongs to.
    """
    found = TENSOR.match(name)
    if found is None:
        for pattern, kind in OTHER_KINDS:
            if re.search(pattern, name):
                raise ValueError(f"it is of another kind, {kind} ({shorten(name)})")
        raise ValueError(f"it has {shorten(name)}, which is no tensor of a LoRA")
    part = found["kohya"] or found["diffusers"] or found["alpha"]
    if found["peft"]:
        part = {"A": "down", "B": "up"}[found["peft"]]
    prefix = _PREFIXES.match(name)
    rest = found["layer"][prefix.end() :]
    if "_lora." in name[len(found["layer"]) :]:
        rest += "_lora"  # belongs to the layer's name, in diffusers before PEFT
    if prefix["text"]:
        return Part("text_encoder", flat("text_encoder", rest), part)
    if _UNET.match(rest):
        return Part("unet", flat("unet", rest), part)
    return None


def flat(network: str, layer: str) -> str:
    """A layer's name as kohya's files have it, whichever way it is written."""
    if network.startswith("text_encoder"):
        for first, today in _FIRST_PROCESSORS.items():
            layer = layer.replace(first, today)
        return re.sub(r"^text_model_", "", layer.replace(".", "_"))
    layer = layer.replace(".processor.", ".").replace("to_out_lora", "to_out_0")
    return re.sub(r"(to_[qkv])_lora$", r"\1", layer).replace(".", "_")
