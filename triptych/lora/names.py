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
    r"^(?:base_model\.model\.)?(?:lora_unet_|unet\."
    r"|(?P<text>lora_te1?_|text_encoder\.)|(?P<text_2>lora_te2_|text_encoder_2\.))?"
)
_UNET = re.compile(
    r"^(?:down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)(?:[._]|$)"
)
NETWORKS = ("unet", "text_encoder", "text_encoder_2")
"""Those that LoRAs change."""
_FIRST_PROCESSORS = {
    "to_q_lora": "q_proj",
    "to_k_lora": "k_proj",
    "to_v_lora": "v_proj",
    "to_out_lora": "out_proj",
}
"""What diffusers called a text encoder's layers before it had PEFT."""

_BLOCK = re.compile(r"^(input|output)_blocks_(\d{1,3})_(\d)_(\D.*)$")
_MIDDLE = re.compile(r"^middle_block_([012])_(\D.*)$")
_OF_MIDDLE = {"0": "resnets_0", "1": "attentions_0", "2": "resnets_1"}
_SAMPLERS = {"op": "downsamplers", "conv": "upsamplers"}
_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}

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
    for group, network in (("text", "text_encoder"), ("text_2", "text_encoder_2")):
        if prefix[group]:
            return Part(network, flat(network, rest), part)
    rest = of_single_file(rest)
    if _UNET.match(rest):
        return Part("unet", flat("unet", rest), part)
    return None


def of_single_file(layer: str) -> str:
    """diffusers' name of a UNet's layer that has the one of single files; others as they are.

    kohya's scripts write `input_blocks_4_1_proj_in` for SDXL. Each level of the UNet has two
    resnets going down and three going up, as all Stable Diffusion has.
    """
    if layer in _ENDS:
        return _ENDS[layer]
    found = _MIDDLE.match(layer)
    if found:
        block, rest = found.groups()
        return f"mid_block_{_OF_MIDDLE[block]}_{_RESNET.get(rest, rest)}"
    found = _BLOCK.match(layer)
    if not found:
        return layer
    side, first, second, rest = found.groups()
    level, position = divmod(int(first) - (side == "input"), 3)
    blocks = f"{'down' if side == 'input' else 'up'}_blocks_{level}"
    if rest in _SAMPLERS:
        return f"{blocks}_{_SAMPLERS[rest]}_0_conv"
    part = "attentions" if second == "1" else "resnets"
    return f"{blocks}_{part}_{position}_{_RESNET.get(rest, rest)}"


def flat(network: str, layer: str) -> str:
    """A layer's name as kohya's files have it, whichever way it is written."""
    if network.startswith("text_encoder"):
        for first, today in _FIRST_PROCESSORS.items():
            layer = layer.replace(first, today)
        return re.sub(r"^text_model_", "", layer.replace(".", "_"))
    layer = layer.replace(".processor.", ".").replace("to_out_lora", "to_out_0")
    return re.sub(r"(to_[qkv])_lora$", r"\1", layer).replace(".", "_")
