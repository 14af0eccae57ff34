"""What the export changes in a config.pbtxt: the engines, their shapes, and parameters.

FastDeploy writes the shapes as accelerators called min_shape, opt_shape and max_shape, each with
one parameter an input: `parameters { key: "sample" value: "2 4 64 64" }`, batch first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from triptych.names import Names

_PROFILE = re.compile(r'name\s*:\s*"(min|opt|max)_shape"')
_PARAMETER = re.compile(r'(key\s*:\s*"(?P<key>[^"]*)"\s*,?\s*value\s*:\s*")(?P<value>[\d\s]+)(")')
_PRECISION = re.compile(
    r'(parameters\s*\{\s*key\s*:\s*"precision"\s*,?\s*value\s*:\s*")(?:trt|ort)(_fp\d+"\s*\})'
)
_OF_TENSORRT = re.compile(
    r'\s*parameters\s*\{\s*key\s*:\s*"(?:cache_file|workspace_size)"\s*,?\s*'
    r'value\s*:\s*"[^"]*"\s*\}'
)
_FOR_GPUS = re.compile(r"^[^#\n]*gpu_execution_accelerator[^\]]*\]", re.MULTILINE)
_ENGINE = re.compile(r'(name\s*:\s*")(?:tensorrt|onnxruntime)(")')
_ON_TENSORRT = re.compile(r'^[^#\n]*name\s*:\s*"tensorrt"', re.MULTILINE)
_FOR_CPUS = re.compile(r"^([^#\n]*?)\s*cpu_execution_accelerator[^\]]*\]", re.MULTILINE)
_ACCELERATORS = re.compile(r"^[^#\n]*execution_accelerators\s*\{", re.MULTILINE)
_ENTRY = re.compile(r'parameters\s*\{\s*key\s*:\s*"(\w+)"[^}]*\}')
_WORKSPACE = 16 * 2**30
"""Bytes; with its own 1 GiB TensorRT 8.5 finds no implementation for the decoder's attention."""
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


def with_input(
    config: str, name: str, like: str, dims: Sequence[int] | None, kind: str = "TYPE_FP32"
) -> str:
    """`config` with one more input, `dims` for each row, or without it where that is None.

    It stands after the input `like`, whose TensorRT shapes it gets where `dims` has -1, and whose
    batches.
    """
    entry = rf'\{{ name: "{name}" [^{{}}]*\}}'
    shape = rf'\s*parameters \{{ key: "{name}" value: "[\d ]+" \}}'
    for pattern in (rf",\s*{entry}", rf"(?<=\[)\s*{entry},", shape):
        config = re.sub(pattern, "", config)
    if dims is None:
        return config

    def shape_after(match: re.Match) -> str:
        batch, *sizes = match.group(2).split()
        new = [size if one < 0 else str(one) for one, size in zip(dims, [*sizes, *dims])]
        value = " ".join((batch, *new))
        return f'{match.group(0)}{match.group(1)}parameters {{ key: "{name}" value: "{value}" }}'

    added = f',\n  {{ name: "{name}" data_type: {kind} dims: [ {", ".join(map(str, dims))} ] }}'
    config = re.sub(rf'\{{ name: "{like}" [^{{}}]*(\{{[^{{}}]*\}} )?\}}', rf"\g<0>{added}", config)
    return re.sub(rf'(\s*)parameters \{{ key: "{like}" value: "([\d ]+)" \}}', shape_after, config)


def with_map(config: str, name: str, like: str, wanted: bool, kind: str = "input_map") -> str:
    """An ensemble's `config` with one more input of a model, or without it where not `wanted`.

    Wherever the model's input `like` is mapped, the new one gets the tensor whose name has its own
    in the place of `like`. kind: `output_map` for an output.
    """
    config = re.sub(rf'\s*{kind} \{{ key: "{name}" value: "\w+" \}}', "", config)
    if not wanted:
        return config
    mapped = rf'(\s*){kind} \{{ key: "{like}" value: "(\w*){like}" \}}'
    added = rf'\g<0>\g<1>{kind} {{ key: "{name}" value: "\g<2>{name}" }}'
    return re.sub(mapped, added, config)


def with_names(config: str, names: Names) -> str:
    """A config.pbtxt of the default model for the model of `names`: its own name, and its steps'.

    Without those of inputs and accelerators, which are never at a line's beginning.
    """

    def named(match: re.Match) -> str:
        return f"{match.group(1)}{names.own(match.group(2))}{match.group(3)}"

    return re.sub(r'^(name: "|\s+model_name: ")(\w+)(")', named, config, flags=re.MULTILINE)


def with_accelerator(config: str, engine: str) -> str:
    """`config` with `engine`, tensorrt or onnxruntime, for GPUs; its precision stays.

    The file for TensorRT's engine, and its workspace, are kept for TensorRT alone.
    """
    prefix = {"tensorrt": "trt", "onnxruntime": "ort"}[engine]

    def change(match: re.Match) -> str:
        entries = _ENGINE.sub(rf"\g<1>{engine}\g<2>", match.group(0))
        entries = _PRECISION.sub(rf"\g<1>{prefix}\g<2>", entries)
        return entries if engine == "tensorrt" else _OF_TENSORRT.sub("", entries)

    return _FOR_GPUS.sub(change, config)


def with_cpu_accelerator(config: str, engine: str, precision: str = "") -> str:
    """`config` with `engine`, onnxruntime or openvino, for processors; its other parameters stay.

    ValueError if it has no execution_accelerators to write that into.
    """
    old = _FOR_CPUS.search(config)
    kept = _ENTRY.finditer(old.group(0)) if old else ()
    entries = [match.group(0) for match in kept if match.group(1) != "precision"]
    if precision:
        entries.append(f'parameters {{ key: "precision" value: "{precision}" }}')
    config = _FOR_CPUS.sub(r"\g<1>", config)
    if engine == "onnxruntime" and not entries:
        return config
    if not _ACCELERATORS.search(config):
        raise ValueError("it has no execution_accelerators")
    new = f'{{ name: "{engine}" {"".join(entry + " " for entry in entries)}}}'
    added = f"\n    cpu_execution_accelerator : [ {new} ]"
    return _ACCELERATORS.sub(lambda match: match.group(0) + added, config, count=1)


def on_tensorrt(config: str) -> bool:
    """Whether `config` names tensorrt for GPUs."""
    return bool(_ON_TENSORRT.search(config))


def with_one_size(config: str) -> str:
    """`config` with opt_shape's sizes in all three shapes, and the workspace that such may need.

    Batches stay.
    """
    usual: dict[str, list[str]] = {}
    for wanted in ("opt", "min", "max"):
        starts = [match.start() for match in _PROFILE.finditer(config)] + [len(config)]
        names = [match.group(1) for match in _PROFILE.finditer(config)]
        if wanted not in names:
            continue
        start, end = starts[names.index(wanted)], starts[names.index(wanted) + 1]

        def change(match: re.Match) -> str:
            batch, *dims = match.group("value").split()
            dims = usual.setdefault(match.group("key"), dims)
            return f"{match.group(1)}{' '.join((batch, *dims))}{match.group(4)}"

        config = config[:start] + _PARAMETER.sub(change, config[start:end]) + config[end:]
    if '"workspace_size"' in config:
        return config
    entry = f' parameters {{ key: "workspace_size" value: "{_WORKSPACE}" }}'
    return _PRECISION.sub(lambda match: match.group(0) + entry, config, count=1)


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


_FOR_PEOPLE = re.compile(
    r'^(?:# For people:.*\n)?parameters\s*\{\s*key\s*:\s*"(?:title|about|has_samples)".*\}\n',
    re.MULTILINE,
)


def without_description(config: str) -> str:
    """The config.pbtxt `config` without what it says of a model for people, which was another."""
    return _FOR_PEOPLE.sub("", config)


def _fit(profile: str, old: int, usual: int) -> int:
    if usual < 0:
        return -usual
    return {"min": min(old, usual), "opt": usual, "max": max(old, usual)}[profile]
