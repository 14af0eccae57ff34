"""ONNX Runtime's own operators in NumPy, after their documentation, for graphs that need CUDA.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math

import numpy as np
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

_erf = np.vectorize(math.erf, otypes=[np.float32])


def outputs(model: ModelProto, feeds: dict) -> list[np.ndarray]:
    """The outputs of `model`, fused operators included."""
    operators = [kind for kind in OpRun.__subclasses__() if kind.__module__ == __name__]
    return ReferenceEvaluator(model, new_ops=operators).run(None, feeds)


def evaluate(model: ModelProto, feeds: dict) -> np.ndarray:
    """The first output of `model`, fused operators included."""
    return outputs(model, feeds)[0]


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _attention(q, k, v):
    """[batch, tokens, heads, size] each, to [batch, tokens, heads * size]."""
    weights = np.einsum("bqnh,bknh->bnqk", q, k) / np.sqrt(q.shape[-1])
    mixed = np.einsum("bnqk,bknh->bqnh", _softmax(weights), v)
    return mixed.reshape(*mixed.shape[:2], -1)


def _layer_norm(x, gamma, beta, epsilon):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * gamma + beta


def _group_norm(x, gamma, beta, epsilon, groups, activation):
    n, h, w, c = x.shape
    grouped = x.reshape(n, h * w, groups, c // groups)
    grouped = grouped - grouped.mean(axis=(1, 3), keepdims=True)
    grouped = grouped / np.sqrt((grouped**2).mean(axis=(1, 3), keepdims=True) + epsilon)
    y = grouped.reshape(x.shape) * gamma + beta
    return y / (1 + np.exp(-y)) if activation else y


def _gelu(x):
    return x * 0.5 * (1 + _erf(x / np.sqrt(2)))


def _single(*arrays):
    return [None if a is None else a.astype(np.float32) for a in arrays]


class NhwcConv(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, w, b=None, **attributes):
        dtype = x.dtype
        x, w, b = _single(x, w, b)
        top, left, bottom, right = attributes["pads"]
        dy, dx = attributes["strides"]
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], axis=(1, 2))
        y = np.einsum("nyxcij,oijc->nyxo", windows[:, ::dy, ::dx], w, optimize=True)
        return ((y if b is None else y + b).astype(dtype),)


class GroupNorm(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, gamma, beta, epsilon=None, groups=None, activation=None, **_):
        y = _group_norm(*_single(x, gamma, beta), epsilon, groups, activation)
        return (y.astype(x.dtype),)


class SkipGroupNorm(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self, x, gamma, beta, skip, bias=None, epsilon=None, groups=None, activation=None, **_
    ):
        whole, scale, shift, added, offset = _single(x, gamma, beta, skip, bias)
        if added.ndim == 2:
            added = added[:, None, None, :]
        whole = whole + added + (0 if offset is None else offset)
        y = _group_norm(whole, scale, shift, epsilon, groups, activation).astype(x.dtype)
        return (y, whole.astype(x.dtype))[: len(self.onnx_node.output)]


class SkipLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, skip, gamma, beta=None, bias=None, epsilon=None, **_):
        whole, added, scale, shift, offset = _single(x, skip, gamma, beta, bias)
        whole = whole + added + (0 if offset is None else offset)
        y = _layer_norm(whole, scale, shift, epsilon).astype(x.dtype)
        none = np.zeros(0, np.float32)
        return (y, none, none, whole.astype(x.dtype))[: len(self.onnx_node.output)]


class MultiHeadAttention(OpRun):
    op_domain = "com.microsoft"

    def _run(self, query, key=None, value=None, num_heads=None, **_):
        if key is None:
            parts = (query[..., i, :] for i in range(3))
        elif value is None:
            parts = (query, key[..., 0, :], key[..., 1, :])
        else:
            parts = (query, key, value)
        q, k, v = (
            part.reshape(*part.shape[:2], num_heads, -1).astype(np.float32) for part in parts
        )
        return (_attention(q, k, v).astype(query.dtype),)


class BiasSplitGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias):
        left, right = np.split(np.add(*_single(x, bias)), 2, axis=-1)
        return ((left * _gelu(right)).astype(x.dtype),)


class BiasAdd(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias, skip):
        return (sum(_single(x, bias, skip)).astype(x.dtype),)


class BiasGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias):
        return (_gelu(np.add(*_single(x, bias))).astype(x.dtype),)


class Gelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, **_):
        return (_gelu(*_single(x)).astype(x.dtype),)


class QuickGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, alpha=None):
        (whole,) = _single(x)
        return ((whole / (1 + np.exp(-alpha * whole))).astype(x.dtype),)
