"""Which of ONNX Runtime's execution providers runs a network.

TensorRT, else CUDA, else OpenVINO where it is asked for, else the CPU.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from triptych.fastdeploy import libraries, openvino
from triptych.fastdeploy.accelerators import NOT_HERE, Accelerators

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
ON_GPU = (TENSORRT, CUDA)

_ENGINES = {"tensorrt": (TENSORRT, CUDA), "onnxruntime": (CUDA,), "paddle": (CUDA,)}
_PROFILE_OPTIONS = {
    "min_shape": "trt_profile_min_shapes",
    "opt_shape": "trt_profile_opt_shapes",
    "max_shape": "trt_profile_max_shapes",
}
_LIBNVINFER = ("libnvinfer.so.10", "libnvinfer.so.9", "libnvinfer.so.8")


def unusable(built_in: Iterable[str]) -> dict[str, str]:
    """The GPU providers that cannot run here, each with the reason.

    `built_in` is what this ONNX Runtime was built with, its `get_available_providers()`. Where one
    can run, its libraries are loaded.
    """
    built_in = set(built_in)
    reasons = {}
    no_gpu = _no_gpu()
    for provider in ON_GPU:
        if provider not in built_in:
            reasons[provider] = "this ONNX Runtime is built without it"
        elif no_gpu:
            reasons[provider] = no_gpu
    if len(reasons) < 2:
        libraries.load()
    if TENSORRT not in reasons and not any(map(libraries.loads, _LIBNVINFER)):
        reasons[TENSORRT] = f"{_LIBNVINFER[0]} does not load"
    return reasons


def choose(
    accelerators: Accelerators,
    reasons: Mapping[str, str],
    device: int = 0,
    cuda: Mapping[str, str] | None = None,
) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """ONNX Runtime's `providers` argument for a network, and a line that says which and why.

    `reasons` are those of `unusable`, and where there is one, why OpenVINO cannot run it; `cuda`
    are more options for that provider. The CPU is always last: it runs what the others lack.
    ConfigError if OpenVINO is to run it and is not installed.
    """
    wanted = _ENGINES[accelerators.gpu]
    usable = [provider for provider in wanted if provider not in reasons]
    options = {
        TENSORRT: _tensorrt_options(accelerators, device),
        CUDA: {"device_id": device, **(cuda or {})},
    }
    chosen = [(name, options[name]) for name in usable]
    precision = ""
    if not usable:
        precision = " in single precision"
        if accelerators.cpu == "openvino" and openvino.PROVIDER not in reasons:
            more, words = openvino.options(accelerators)
            chosen, precision = [(openvino.PROVIDER, more)], f" in {words}"
    chosen.append((CPU, {}))
    passed_over = [
        f"no {name.replace('ExecutionProvider', '')}: {reasons[name]}"
        for name in wanted[: wanted.index(usable[0]) if usable else len(wanted)]
    ]
    line = chosen[0][0] + precision
    asked = accelerators.gpu if usable else accelerators.cpu
    if asked in NOT_HERE:
        passed_over.append(f"{asked} is FastDeploy's alone")
    if asked == "openvino" and openvino.PROVIDER in reasons:
        passed_over.append(f"no OpenVINO: {reasons[openvino.PROVIDER]}")
    if passed_over:
        line += f" ({'; '.join(passed_over)})"
    if chosen[0][0] == TENSORRT and accelerators.cache_file:
        line += _not_kept(Path(accelerators.cache_file).parent)
    return chosen, line


def _not_kept(folder: Path) -> str:
    """What a folder means for the engines to be kept in it, where they cannot be."""
    existing = folder if folder.exists() else folder.parent
    if os.access(existing, os.W_OK | os.X_OK):
        return ""
    return f"; {folder} cannot be written, so that every start builds the engine again"


def _tensorrt_options(accelerators: Accelerators, device: int) -> dict[str, Any]:
    options: dict[str, Any] = {"device_id": device, "trt_fp16_enable": accelerators.gpu_fp16}
    if accelerators.workspace_size:
        options["trt_max_workspace_size"] = accelerators.workspace_size
    if accelerators.cache_file:
        cache = PurePath(accelerators.cache_file)
        options["trt_engine_cache_enable"] = True
        options["trt_engine_cache_path"] = str(cache.parent)
        options["trt_engine_cache_prefix"] = cache.stem
    for profile, tensors in accelerators.shapes.items():
        options[_PROFILE_OPTIONS[profile]] = ",".join(
            f"{tensor}:{'x'.join(map(str, shape))}" for tensor, shape in tensors.items()
        )
    return options


def _no_gpu() -> str:
    """Why CUDA's driver finds no GPU; empty if it finds one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "no GPU"
    return ""
