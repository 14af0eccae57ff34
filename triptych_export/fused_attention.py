"""ONNX Runtime's fusion of the UNet's attention, which here keeps queries, keys and values apart.

ONNX Runtime has them in one product, a head's three beside each other, as its own kernels take
them. cuDNN's, which it prefers on Hopper, takes them apart: that was a pass over all of them.
"""

from __future__ import annotations

from onnx import helper
from onnxruntime.transformers.fusion_attention_unet import FusionAttentionUnet
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model_unet import UnetOnnxModel

from triptych_export.rewriting import DOMAIN


class _Apart(FusionAttentionUnet):
    def __init__(self, model: UnetOnnxModel, is_cross_attention: bool) -> None:
        super().__init__(model, 0, 0, is_cross_attention, False, False)

    def create_attention_node(self, q_matmul, k_matmul, v_matmul, num_heads, *_, **given):
        normed = q_matmul.input[0]
        if normed != given["input"] or k_matmul.input[0] != v_matmul.input[0]:
            return None
        if (k_matmul.input[0] != normed) != self.is_cross_attention:
            return None
        self.increase_counter("MultiHeadAttention")
        return helper.make_node(
            "MultiHeadAttention",
            [product.output[0] for product in (q_matmul, k_matmul, v_matmul)],
            [given["output"]],
            self.model.create_node_name("MultiHeadAttention"),
            domain=DOMAIN,
            num_heads=num_heads,
        )


class UNet(UnetOnnxModel):
    def fuse_multi_head_attention(self, options: FusionOptions | None = None) -> None:
        for is_cross_attention in (False, True):
            _Apart(self, is_cross_attention).apply()
