"""What the export changes in a config.pbtxt: the engine for GPUs, its shapes, and parameters.

FastDeploy writes the shapes as accelerators called min_shape, opt_shape and max_shape, each with
one parameter an input: `parameters { key: "sample" value: "2 4 64 64" }`, batch first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_PROFILE = re.compile(r'name\s*:\s*"(min|opt|max)_shape"')
_PARAMETER = re.compile(r'(key\s*:\s*"(?P<key>[^"]*)"\s*,?\s*value\s*:\s*")(?P<value>[\d\s]+)(")')
_PRECISION = re.compile(
    r'(parameters\s*\{\s*key\s*:\s*"precision"\s*,?\s*value\s*:\s*")(?:trt|ort)(_fp\d+"\s*\})'
)
_CACHE_PARAMETER = re.compile(
    r'\s*parameters\s*\{\s*key\s*:\s*"cache_file"\s*,?\s*value\s*:\s*"[^"]*"\s*\}'
)
_FOR_GPUS = re.compile(r"^[^#\n]*gpu_execution_accelerator[^\]]*\]", re.MULTILINE)
_ENGINE = re.compile(r'(name\s*:\s*")(?:tensorrt|onnxruntime)(")')
_CACHE_FILE = re.compile(r'(key\s*:\s*"cache_file"\s*,?\s*value\s*:\s*")[^"]*(")')


def follow_model(config: str, sizes: dict[str, tuple[int, ...]]) -> str:
    """`config` with the shapes of the inputs named in `sizes` made to fit; the rest untouched.

    sizes: input -> its dimensions without the batch, as a usual call has them. opt becomes the
    usual call; min and max are widened where they do not hold it. A negative number is a
    dimension that is the same in every call: all three shapes get its absolute value.
    """
    starts = [(match.start(), match.group(1)) for match in _PROFILE.finditer(config)]

    def profile_at(position: int) -> str | None:
        before = [name for start, name in starts if start < position]
        return before[-1] if before else None

    def replace(match: re.Match) -> str:
        profile = profile_at(match.start())
        wanted = sizes.get(match.group("key"))
        if profile is None or wanted is None:
            return match.group(0)
        batch, *dims = (int(number) for number in match.group("value").split())
        if len(dims) != len(wanted):
            return match.group(0)
        new = [_fit(profile, old, usual) for old, usual in zip(dims, wanted)]
        return match.group(1) + " ".join(str(n) for n in (batch, *new)) + match.group(4)

    return _PARAMETER.sub(replace, config)


def with_row_input(config: str, name: str, width: int | None) -> str:
    """`config` with one more input, float32 [width] for each row, or without it where it is None.

    Its TensorRT shapes have the batches that those of `timestep` have.
    """
    entry = rf'\n\s*\{{ name: "{name}" data_type: TYPE_FP32 dims: \[ \d+ \] \}},'
    shape = rf'\n\s*parameters \{{ key: "{name}" value: "\d+ \d+" \}}'
    config = re.sub(shape, "", re.sub(entry, "", config))
    if width is None:
        return config
    entry = f'\n  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {width} ] }},'
    config = re.sub(r"^input \[", lambda match: match.group(0) + entry, config, count=1, flags=re.M)
    return re.sub(
        r'(\n\s*)parameters \{ key: "timestep" value: "(\d+)" \}',
        rf'\g<0>\g<1>parameters {{ key: "{name}" value: "\g<2> {width}" }}',
        config,
    )


def with_latent_input(config: str, name: str, channels: int | None) -> str:
    """`config` with one more input of the size of `sample`, or without it where it is None.

    Its TensorRT shapes are those of `sample` but for the channels.
    """
    entry = rf'\n\s*\{{ name: "{name}" data_type: TYPE_FP32 dims: \[ \d+, -1, -1 \] \}},'
    shape = rf'\n\s*parameters \{{ key: "{name}" value: "[\d ]+" \}}'
    config = re.sub(shape, "", re.sub(entry, "", config))
    if channels is None:
        return config
    entry = f'\n  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {channels}, -1, -1 ] }},'
    config = re.sub(r"^input \[", lambda match: match.group(0) + entry, config, count=1, flags=re.M)
    return re.sub(
        r'(\n\s*)parameters \{ key: "sample" value: "(\d+) \d+ (\d+ \d+)" \}',
        rf'\g<0>\g<1>parameters {{ key: "{name}" value: "\g<2> {channels} \g<3>" }}',
        config,
    )


def without_inputs(config: str, names: Sequence[str]) -> str:
    """`config` without these inputs of a network, their TensorRT shapes, or an ensemble's maps."""
    for name in names:
        entry = (
            rf',?\n\s*\{{ name: "{name}" data_type: TYPE_\w+ dims: \[ [-\d]+ \] \}}(?=,|\s*\n\])'
        )
        shape = rf'\n\s*parameters \{{ key: "{name}" value: "[\d ]+" \}}'
        mapped = rf'\n\s*input_map \{{ key: "{name}" value: "\w+" \}}'
        for pattern in (entry, shape, mapped):
            config = re.sub(pattern, "", config)
    return config


def with_accelerator(config: str, engine: str) -> str:
    """`config` with `engine`, tensorrt or onnxruntime, for GPUs; its precision stays.

    The file for TensorRT's engine is kept for TensorRT alone.
    """
    prefix = {"tensorrt": "trt", "onnxruntime": "ort"}[engine]

    def change(match: re.Match) -> str:
        entries = _ENGINE.sub(rf"\g<1>{engine}\g<2>", match.group(0))
        entries = _PRECISION.sub(rf"\g<1>{prefix}\g<2>", entries)
        return entries if engine == "tensorrt" else _CACHE_PARAMETER.sub("", entries)

    return _FOR_GPUS.sub(change, config)


def with_cache_file(config: str, path: Path) -> str:
    """The config.pbtxt `config` with TensorRT's engine kept at `path`."""
    if _CACHE_FILE.search(config):
        return _CACHE_FILE.sub(lambda match: f"{match.group(1)}{path}{match.group(2)}", config)
    entry = f' parameters {{ key: "cache_file" value: "{path}" }}'
    return _PRECISION.sub(lambda match: match.group(0) + entry, config, count=1)


def parameter(name: str, value: str) -> str:
    """The line of a config.pbtxt that sets a model's parameter."""
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


def with_parameter(config: str, name: str, value: str) -> str:
    """The config.pbtxt `config` with that parameter, unless it says something of it already."""
    if re.search(rf'key\s*:\s*"{re.escape(name)}"', config):
        return config
    return f"{config.rstrip()}\n{parameter(name, value)}"


def _fit(profile: str, old: int, usual: int) -> int:
    if usual < 0:
        return -usual
    return {"min": min(old, usual), "opt": usual, "max": max(old, usual)}[profile]
