"""Tensors that another model left in a GPU's memory, brought to the host's.

A newer Triton puts a called model's outputs into the host's memory when it is asked to. On 21.10,
FastDeploy's, what TensorRT computes stays on the GPU; Paddle, which FastDeploy's image has, takes
it over by DLPack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DRIVER = Path("/dev/nvidiactl")
"""There where this machine has an NVIDIA GPU that can be used."""


def check(model: str, accelerators: Mapping[str, Any]) -> None:
    """Raise ValueError if outputs of `model`, with these accelerators, will be out of reach.

    They are where TensorRT runs on a GPU and this Python has no Paddle that is built for CUDA.
    """
    if "tensorrt" in accelerators and DRIVER.exists():
        problem = _problem()
        if problem:
            raise ValueError(f"{model} leaves its outputs on the GPU with tensorrt, {problem}")


def to_host(tensor: Any) -> np.ndarray:
    """The numbers of one of Triton's tensors that is in a GPU's memory, copied to the host's.

    RuntimeError, with what to do about it, where nothing here can copy them.
    """
    problem = _problem()
    if problem:
        raise RuntimeError(f"{tensor.name()} is in a GPU's memory, {problem}")
    import paddle

    return paddle.utils.dlpack.from_dlpack(tensor.to_dlpack()).numpy()


def _problem() -> str:
    """Why Paddle cannot bring a tensor to the host, and what to do; empty if it can."""
    fix = "install paddlepaddle-gpu, or set onnxruntime in place of tensorrt in its config.pbtxt"
    try:
        import paddle
    except ImportError as error:
        return f"and Paddle, which could fetch them, cannot be imported ({error}): {fix}"
    if not paddle.is_compiled_with_cuda():
        return f"and this Paddle, which could fetch them, is built without CUDA: {fix}"
    return ""
