"""OpenVINO as an execution provider of ONNX Runtime, by the package onnxruntime-ep-openvino.

ONNX Runtime loads it as a plugin. It takes the same graphs, with any sizes, and with weights as
inputs.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from triptych.fastdeploy.accelerators import Accelerators, ConfigError

PROVIDER = "OpenVINOExecutionProvider"
_PACKAGE = "onnxruntime_ep_openvino"
_WHERE = "cpu_execution_accelerator openvino"


def unfit(inputs: Sequence[Mapping[str, Any]]) -> str:
    """Why a network with these inputs of a config.pbtxt cannot run here; empty if it can."""
    for entry in inputs:
        if entry["data_type"].startswith("TYPE_INT"):
            return f"it would take {entry['name']} out of range, and draw another picture"
    return ""


def options(accelerators: Accelerators) -> tuple[dict[str, str], str]:
    """The provider's options, and the precision that they are for, in words.

    ConfigError where the package is not installed, ONNX Runtime is too old for it, or the
    processor is not Intel's.
    """
    capable = "BF16" in _device().ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split()
    bf16 = accelerators.cpu_bf16 and capable
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "NUM_STREAMS": "1",  # as runs come one after the other
        "ENABLE_CPU_PINNING": "NO",  # or all instances would share the first cores
    }
    if accelerators.cpu_threads:
        settings["INFERENCE_NUM_THREADS"] = str(accelerators.cpu_threads)
    words = "bfloat16" if bf16 else "single precision"
    if accelerators.cpu_bf16 and not capable:
        words += ": this processor has no bfloat16"
    return {"load_config": json.dumps({"CPU": settings})}, words


def add_to(session_options: onnxruntime.SessionOptions, options: Mapping[str, str]) -> None:
    """Have a session with these options run by OpenVINO."""
    session_options.add_provider_for_devices([_device()], dict(options))


def _device() -> Any:
    """ONNX Runtime's OrtEpDevice of the processor."""
    for device in _devices():
        if device.ep_name == PROVIDER and device.ep_metadata.get("ov_device") == "CPU":
            return device
    vendor = next((one.device.vendor for one in _devices()), "another maker")
    raise ConfigError(
        f"{_WHERE}: its plugin for ONNX Runtime takes Intel's processors alone, this one is of "
        f"{vendor}: `scripts/export_stages.py --cpu-accelerator onnxruntime` goes back"
    )


@functools.lru_cache(maxsize=None)
def _devices() -> Sequence[Any]:
    """All that ONNX Runtime can run on, its own CPU provider first.

    The plugin can be loaded once in a process.
    """
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        version = onnxruntime.__version__
        raise ConfigError(f"{_WHERE}: ONNX Runtime {version} takes no plugins, 1.23 or later does")
    try:
        plugin = importlib.import_module(_PACKAGE)
    except ImportError as error:
        raise ConfigError(f"{_WHERE}: {error}: `pip install .[openvino]` brings it") from None
    onnxruntime.register_execution_provider_library(PROVIDER, plugin.get_library_path())
    return onnxruntime.get_ep_devices()
