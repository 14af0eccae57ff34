"""A config.pbtxt's `optimization.execution_accelerators`, as FastDeploy documents them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

PROFILES = ("min_shape", "opt_shape", "max_shape")
"""Accelerators that are no engines: TensorRT's shapes, one parameter an input, batch first."""

GPU_ENGINES = ("tensorrt", "onnxruntime", "paddle")
CPU_ENGINES = ("onnxruntime", "openvino", "paddle")
NOT_HERE = ("paddle",)
"""Engines of FastDeploy's that this backend has ONNX Runtime for."""


class ConfigError(ValueError):
    """A config.pbtxt that this backend cannot follow: a load error."""


@dataclass(frozen=True)
class Accelerators:
    """How to run one network.

    `gpu` and `cpu` are the engines asked for on a GPU and without one; where one cannot be loaded
    the next best is. `gpu_fp16`: whether half precision will do on a GPU; `cpu_bf16`: whether
    bfloat16 will do with OpenVINO. `cpu_threads` 0 leaves the number to the engine.
    `workspace_size` is in bytes, 0 leaves it to TensorRT. `cache_file`: where TensorRT's engine is
    kept, empty for nowhere. `shapes` has, for each of `PROFILES`, the dimensions of every input.
    """

    gpu: str = "tensorrt"
    cpu: str = "onnxruntime"
    gpu_fp16: bool = False
    workspace_size: int = 0
    cache_file: str = ""
    cpu_bf16: bool = False
    cpu_threads: int = 0
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)

    def built_for(self, inputs: Mapping[str, Sequence[int]]) -> bool:
        """Whether TensorRT's engine takes inputs of these shapes, batch first.

        Where no shapes are declared it takes all of them.
        """
        least, most = (self.shapes.get(name, {}) for name in ("min_shape", "max_shape"))
        return all(
            low <= size <= high
            for name in least.keys() & most.keys() & inputs.keys()
            for low, size, high in zip(least[name], inputs[name], most[name])
        )


def parse(model_config: Mapping[str, Any]) -> Accelerators:
    """The accelerators of a model's configuration, a dict as Triton gives it to Python models.

    Raises ConfigError, saying what is allowed, for a name or value that is not known.
    """
    optimization = model_config.get("optimization") or {}
    asked = optimization.get("execution_accelerators") or {}
    values: dict[str, Any] = {}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for entry in asked.get("cpu_execution_accelerator") or ():
        where = _name(entry, "cpu_execution_accelerator", CPU_ENGINES)
        known = _OPENVINO if entry["name"] == "openvino" else _CPU
        values.update(_parameters(entry, where, known), cpu=entry["name"])
    for entry in asked.get("gpu_execution_accelerator") or ():
        where = _name(entry, "gpu_execution_accelerator", (*GPU_ENGINES, *PROFILES))
        name = entry["name"]
        if name in PROFILES:
            shapes[name] = _shapes(entry, where)
        else:
            values.update(_parameters(entry, where, _GPU), gpu=name)
    _check_profiles(shapes)
    return Accelerators(shapes=shapes, **values)


def _name(entry: Mapping[str, Any], kind: str, allowed: tuple[str, ...]) -> str:
    name = entry.get("name", "")
    if name == "poros":
        instead = "a model for it is TorchScript; write onnxruntime, which runs model.onnx"
        raise ConfigError(f"{kind} 'poros': {instead}")
    if name not in allowed:
        raise ConfigError(f"{kind} {name!r}: allowed: {', '.join(allowed)}")
    return f"{kind} {name}"


def _parameters(entry: Mapping[str, Any], where: str, known: Mapping[str, tuple]) -> dict[str, Any]:
    """The values that `known` has a field for; one without is checked and has no effect here."""
    values = {}
    for key, text in (entry.get("parameters") or {}).items():
        if key not in known:
            raise ConfigError(f"{where}: parameter {key!r}: allowed: {', '.join(known)}")
        target, read, allowed = known[key]
        try:
            value = read(text)
        except (KeyError, ValueError):
            raise ConfigError(f"{where}: {key}: got {text!r}; allowed: {allowed}") from None
        if target:
            values[target] = value
    return values


def _shapes(entry: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for tensor, text in (entry.get("parameters") or {}).items():
        try:
            shapes[tensor] = tuple(_positive(number) for number in text.split())
        except ValueError:
            shapes[tensor] = ()
        if not shapes[tensor]:
            allowed = "whole numbers from 1, batch first, with spaces between, as '1 4 64 64'"
            raise ConfigError(f"{where}: {tensor}: got {text!r}; allowed: {allowed}")
    return shapes


def _check_profiles(shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    """TensorRT takes all three shapes of an input or none, none of them larger than the next."""
    for profile in PROFILES:
        if shapes and set(shapes.get(profile, {})) != set(shapes.get("opt_shape", {})):
            raise ConfigError(f"{profile}: needed for the same inputs as in opt_shape")
    for tensor in shapes.get("opt_shape", {}):
        least, usual, most = (shapes[profile][tensor] for profile in PROFILES)
        same_rank = len(least) == len(usual) == len(most)
        if not same_rank or any(not a <= b <= c for a, b, c in zip(least, usual, most)):
            raise ConfigError(f"{tensor}: needs min_shape <= opt_shape <= max_shape everywhere")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _one_of(**meanings: Any) -> Callable[[str], Any]:
    return lambda text: meanings[text.lower()]


def _file(text: str) -> str:
    if not PurePath(text).is_absolute():
        raise ValueError(text)
    return text


_COUNT = "a whole number from 1"
_FLAG = (
    None,
    _one_of(**{"true": True, "1": True, "false": False, "0": False}),
    "true, 1, false, 0",
)
_HALF = {f"{engine}_fp{bits}": bits == 16 for engine in ("trt", "ort", "pd") for bits in (16, 32)}

# FastDeploy takes each of them with every engine, whether that heeds it or not.
_ANY = {
    "is_clone": _FLAG,  # whether instances share weights: here each has a process of its own
    "use_mkldnn": _FLAG,
    "use_paddle_log": _FLAG,
}
_CPU: dict[str, tuple] = {
    "cpu_threads": ("cpu_threads", _positive, _COUNT),
    "num_streams": (None, _positive, _COUNT),
    **_ANY,
}
_BFLOAT = {"ov_bf16": True, "ov_fp32": False}
_OPENVINO: dict[str, tuple] = {
    "precision": ("cpu_bf16", _one_of(**_BFLOAT), ", ".join(_BFLOAT)),
    **_CPU,
}
_GPU: dict[str, tuple] = {
    "precision": ("gpu_fp16", _one_of(**_HALF), ", ".join(_HALF)),
    "workspace_size": ("workspace_size", _positive, _COUNT + " (bytes)"),
    "cache_file": ("cache_file", _file, "an absolute path"),
    "cpu_threads": (None, _positive, _COUNT),
    **_ANY,
}
