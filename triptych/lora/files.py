"""What is in a LoRA's file: read with safetensors, within bounds, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from triptych.errors import InvalidRequest, shorten
from triptych.lora import models, names
from triptych.lora.peft_config import scales as scales_of

MOST_BYTES = 2**30
"""The largest file that is read."""
MOST_HEADER_BYTES = 2**24
"""The largest header, in which the tensors have their names."""
MOST_NUMBER = 1e6
"""The largest alpha, for each of the rank."""

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


class Layer(NamedTuple):
    """A change of one layer's weight: `scale * up @ down`, float32.

    `down` is [rank, in] or [rank, in, height, width], `up` [out, rank] with as many axes. LoCon
    may have `mid` between them, [rank, rank, height, width].
    """

    down: np.ndarray
    up: np.ndarray
    scale: float
    mid: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it changes, without axes of length 1 at the end."""
        window = self.down.shape[2:] if self.mid is None else self.mid.shape[2:]
        return (len(self.up), self.down.shape[1], *(window if set(window) != {1} else ()))

    def down_and_mid(self) -> np.ndarray:
        """[rank, in * height * width]."""
        down = self.down
        if self.mid is not None:
            down = np.einsum("abhw,bi->aihw", self.mid, down.reshape(down.shape[:2]))
        return down.reshape(len(down), -1)

    def delta(self) -> np.ndarray:
        """The change, float32, of the shape `shape`."""
        change = self.up.reshape(len(self.up), -1) @ self.down_and_mid()
        change *= np.float32(self.scale)
        return change.reshape(self.shape)


class LoraFile(NamedTuple):
    """`layers` are by network and by the layer's name as `names.flat` gives it.

    `model` is the name of the model that it was made for, as far as the file tells.
    """

    layers: dict[str, dict[str, Layer]]
    model: str

    @property
    def nbytes(self) -> int:
        return sum(
            array.nbytes
            for layers in self.layers.values()
            for layer in layers.values()
            for array in (layer.down, layer.up, layer.mid)
            if array is not None
        )


class WrongModel(ValueError):
    """A file for a model that is not served here; says which, and how that is known."""


def read(path: Path, name: str, served: str = "this model") -> LoraFile:
    """The LoRA in a .safetensors file.

    InvalidRequest, with `name`, for a file that cannot be read, is something else than a LoRA, is
    too large, or holds NaN or infinity; with the model's name, `served`, for one that is for
    another.
    """
    try:
        _check_size(path)
        with safetensors.safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
        # As bytes: NumPy has no bfloat16, which safe_open would need to give tensors.
        return _lora(dict(safetensors.deserialize(path.read_bytes())), metadata)
    except WrongModel as error:
        allowed = f"a LoRA for {served}, but it is for {error}"
        raise InvalidRequest("loras", name, allowed) from None
    except Exception as error:
        raise _unfit(name, error) from None


def networks(path: Path, name: str) -> set[str]:
    """The networks that a file has layers for, from its header alone; InvalidRequest as `read`."""
    return {part.network for part in _header(path, name)}


def text_width(path: Path, name: str) -> int | None:
    """The width of the text that a file's layers of the UNet read, from its header alone.

    None where it has no such layer. InvalidRequest as `read`.
    """
    for part, shape in _header(path, name).items():
        if part.network == "unet" and part.part == "down" and part.layer.endswith(models.TEXT):
            return shape[1] if len(shape) > 1 else None
    return None


def _header(path: Path, name: str) -> dict[names.Part, list[int]]:
    """The shapes of the tensors that belong to a network; InvalidRequest as `read`."""
    try:
        _check_size(path)
        with safetensors.safe_open(str(path), framework="numpy") as file:
            found = {key: names.read(key) for key in sorted(file.keys())}
            return {
                part: file.get_slice(key).get_shape()
                for key, part in found.items()
                if part is not None
            }
    except Exception as error:
        raise _unfit(name, error) from None


def _unfit(name: str, error: Exception) -> InvalidRequest:
    """What is wrong with a file; its folder is nobody's business."""
    reason = getattr(error, "strerror", None) or str(error)
    return InvalidRequest("loras", name, f"a LoRA in a .safetensors file, but {reason[:160]}")


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"it has {size} bytes, over {MOST_BYTES}")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MOST_HEADER_BYTES:
        raise ValueError(f"its header has {header} bytes, over {MOST_HEADER_BYTES}")


def _lora(tensors: Mapping[str, Mapping[str, Any]], metadata: Mapping[str, str]) -> LoraFile:
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    others = []
    for name, tensor in tensors.items():
        part = names.read(name)
        if part is None:
            others.append(name)
            continue
        parts = found.setdefault((part.network, part.layer), {})
        if part.part in parts:
            raise ValueError(f"it has {name} twice, under two names")
        parts[part.part] = _values(name, tensor)
    model = models.of_lora(found, others, metadata)
    if others:
        raise WrongModel(f"{model} ({shorten(others[0])})")
    scales = scales_of(metadata)
    layers: dict[str, dict[str, Layer]] = {}
    for (network, layer), parts in found.items():
        layers.setdefault(network, {})[layer] = _layer(layer, parts, scales.get(network))
    if not layers:
        raise ValueError("it has no tensors")
    return LoraFile(layers, model)


def _values(name: str, tensor: Mapping[str, Any]) -> np.ndarray:
    kind, data = tensor["dtype"], tensor["data"]
    if kind == "BF16":
        values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view(np.float32)
    elif kind in _TYPES:
        values = np.frombuffer(data, _TYPES[kind]).astype(np.float32)
    else:
        raise ValueError(f"{name} is {kind}, not {', '.join(_TYPES)} or BF16")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has NaN or infinity")
    return values.reshape(tensor["shape"])


def _layer(name: str, parts: Mapping[str, np.ndarray], scales: Any) -> Layer:
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise ValueError(f"{name} has no {missing[0]}")
    down, up, mid = parts["down"], parts["up"], parts.get("mid")
    rank = len(down)
    fits = down.ndim in (2, 4) and up.ndim == down.ndim and up.shape[1] == rank
    fits = fits and set(up.shape[2:]) <= {1} and 0 not in (*down.shape, *up.shape)
    if mid is not None:
        fits = fits and mid.ndim == 4 and mid.shape[:2] == (rank, rank)
        fits = fits and down.ndim == 4 and set(down.shape[2:]) == {1} and 0 not in mid.shape
    if not fits:
        raise ValueError(f"{name}: up {list(up.shape)} and down {list(down.shape)} do not fit")
    alpha = parts.get("alpha", np.float32(rank))
    if alpha.size != 1:
        raise ValueError(f"{name}: alpha is no number")
    scale = float(alpha.reshape(())) / rank
    if scales is not None and "alpha" not in parts:
        scale = scales(name, rank)
    if not abs(scale) <= MOST_NUMBER:
        raise ValueError(f"{name}: alpha / rank is {scale:g}, over {MOST_NUMBER:g}")
    return Layer(down, up, scale, mid)
