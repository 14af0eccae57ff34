"""ONNX Runtime's own operators in place of several plain ones, in half precision, for CUDA.

Written beside the plain graph: the CPU and TensorRT lack these operators.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import onnx
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel
from onnxruntime.transformers.onnx_model_clip import ClipOnnxModel
from onnxruntime.transformers.onnx_model_vae import VaeOnnxModel

from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych_export import onnx_files
from triptych_export.bare_graph import BareGraph
from triptych_export.channels_last import ChannelsLast
from triptych_export.errors import ExportError
from triptych_export.folded_biases import ADD_WIDTHS, FoldedBiases
from triptych_export.fused_attention import UNet
from triptych_export.fused_places import write_places
from triptych_export.joined_products import JoinedProducts
from triptych_export.rewriting import DOMAIN

NAME = "model.cuda.onnx"
KINDS = {
    "text_encoder": ("clip", ClipOnnxModel),
    "text_encoder_2": ("clip", ClipOnnxModel),
    "unet": ("unet", UNet),
    "vae_decoder": ("vae", VaeOnnxModel),
}
"""What ONNX Runtime's optimizer calls the stages, and its optimizers of them."""
EXPECTED = {
    "text_encoder": ("SkipLayerNormalization",),
    "text_encoder_2": ("SkipLayerNormalization",),
    "unet": ("MultiHeadAttention", "SkipGroupNorm", "NhwcConv", "SkipLayerNormalization"),
    "vae_decoder": ("SkipGroupNorm", "NhwcConv"),
    "AutoencoderTiny": ("NhwcConv",),
}
"""Operators that a graph with nothing fused would lack; of a stage, or of a class in its place."""
WIDTHS = {"BiasAdd": ADD_WIDTHS, "BiasSplitGelu": (2560, 5120, 10240)}
"""The lengths of a bias that CUDA's kernels of these operators are made for, and no others."""
REWRITINGS = (ChannelsLast, FoldedBiases, JoinedProducts)
"""What is done to the graph after ONNX Runtime's fusion, in this order."""


def fuse(stage: str, folder: Path) -> dict[str, int]:
    """Write folder/model.cuda.onnx from folder/model.onnx; how often each operator was fused.

    Inputs and output stay in single precision. ExportError where the graph has not the patterns.
    """
    logging.disable(logging.WARNING)
    bare = BareGraph(folder / "model.onnx")
    model = _optimized(stage, bare.graph(), with_biases=True)
    if not _widths_have_kernels(model.model):
        model = _optimized(stage, bare.graph(), with_biases=False)
    bare.in_half(model.model)
    model.convert_float_to_float16(keep_io_types=True, node_block_list=_waves(model))
    bare.fill(model.model)
    model.topological_sort()
    for rewriting in REWRITINGS:
        rewriting(model).run()
    counts = {name: n for name, n in model.get_fused_operator_statistics().items() if n}
    config = json.loads(OnnxGraph(folder / "model.onnx").metadata.get("config", "{}"))
    expected = EXPECTED.get(config.get("_class_name"), EXPECTED[stage])
    missing = [name for name in expected if name not in counts]
    if missing:
        raise ExportError(f"{stage}: ONNX Runtime found no {', '.join(missing)} to fuse")
    if DOMAIN not in {known.domain for known in model.model.opset_import}:
        model.model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    if stage != "vae_decoder":  # no LoRA changes it
        write_places(model.model, folder / "model.onnx")
    onnx_files.save(model.model, folder, NAME)
    return counts


def _optimized(stage: str, graph: onnx.ModelProto, with_biases: bool) -> OnnxModel:
    """The graph with its patterns fused; `with_biases`: also those of WIDTHS."""
    kind, optimizer = KINDS[stage]
    patterns = FusionOptions(kind)
    # Of the VAE's attention ONNX Runtime's fusion keeps the weights and forgets the biases.
    patterns.enable_attention = stage != "vae_decoder"
    patterns.enable_nhwc_conv = False  # it reads weights: see ChannelsLast
    patterns.enable_bias_add = patterns.enable_bias_splitgelu = with_biases
    model = optimizer(graph)
    model.optimize(patterns)
    return model


def _waves(model: OnnxModel) -> list[str]:
    """The nodes from timesteps and sizes to their sines, which stay in single precision.

    In half precision a sine of timestep 981 is up to 0.27 away.
    """
    producers = model.output_name_to_node()
    found: set[str] = set()
    left = [node for node in model.nodes() if node.op_type in ("Sin", "Cos")]
    while left:
        node = left.pop()
        if node.name not in found:
            found.add(node.name)
            left += [producers[name] for name in node.input if name in producers]
    return list(found)


def _widths_have_kernels(graph: onnx.ModelProto) -> bool:
    weights = {weight.name: weight for weight in graph.graph.initializer}
    return all(
        weights[node.input[1]].dims[0] in WIDTHS[node.op_type]
        for node in graph.graph.node
        if node.op_type in WIDTHS
    )
