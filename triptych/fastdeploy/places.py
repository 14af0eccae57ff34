"""Where the weights of a network's layers are in its graph."""

from __future__ import annotations

from typing import Dict, Tuple

from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.lora import models
from triptych.lora.merging import Place, by_layer

TRANSPOSED = ".T"
"""Ends the name of a tensor that holds a weight transposed."""
TEXT_ENCODERS = {"CLIPTextModel": "text_encoder", "CLIPTextModelWithProjection": "text_encoder_2"}
"""The networks that the classes of text encoders are served as."""
PLACES = "places"
"""Metadata of a fused graph: {layer's weight: [shape, tensor, axes, axis, start]}."""

Found = Tuple[str, str, Dict[str, Place]]


def places(graph: OnnxGraph) -> Found:
    """The network, its model's name, and the places by layer.

    ValueError where the graph does not keep the names of the framework's weights.
    """
    config, same = graph.json("config"), graph.json("same_weights")
    if config is None:
        raise ValueError("its graph keeps no names of weights: export the model again")
    architectures = config.get("architectures") or ()
    encoders = [TEXT_ENCODERS[name] for name in architectures if name in TEXT_ENCODERS]
    if config.get("_class_name") == "UNet2DConditionModel":
        network, model = "unet", models.by_width(config.get("cross_attention_dim"))
    elif encoders:
        network, model = encoders[0], models.by_text_encoder(config.get("hidden_size"))
    else:
        raise ValueError("it is no UNet and no text encoder of CLIP")
    told = graph.json(PLACES)
    if told is not None:
        own = {
            weight: Place(tuple(shape), tensor, tuple(axes), axis, start)
            for weight, (shape, tensor, axes, axis, start) in told.items()
        }
    else:
        shared = {*(same or {}), *(name for name, _ in (same or {}).values())}
        own = {}
        for tensor, weight in graph.weights.items():
            axes = tuple(range(len(weight.shape)))
            name, shape = tensor, weight.shape
            if tensor.endswith(TRANSPOSED):
                name, axes, shape = tensor[: -len(TRANSPOSED)], axes[::-1], shape[::-1]
            if len(shape) in (2, 4) and tensor not in shared:
                own[name] = Place(shape, tensor, axes)
    return network, model, by_layer(network, own)
