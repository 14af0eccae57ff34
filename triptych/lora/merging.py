"""A network's weights with LoRAs added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from triptych.errors import InvalidRequest
from triptych.lora import names
from triptych.lora.files import Layer, LoraFile


class Place(NamedTuple):
    """Where a layer's weight is in a graph.

    `shape` is the weight's own, [out, in, ...]. `tensor` is the name of the graph's tensor. `axes`
    are those of the weight in the tensor's order. Of a tensor that holds several layers' weights
    one after another along `axis`, this one begins at `start`.
    """

    shape: tuple[int, ...]
    tensor: str
    axes: tuple[int, ...]
    axis: int = 0
    start: int = 0

    def of(self, values: np.ndarray) -> np.ndarray:
        """The weight's part of the tensor, a view."""
        length = self.shape[self.axes[self.axis]]
        index = [slice(None)] * self.axis + [slice(self.start, self.start + length)]
        return values[tuple(index)]


def by_layer(network: str, weights: Mapping[str, Place]) -> dict[str, Place]:
    """The places of a network's weights, which `weights` has by their names, by layer."""
    ending = ".weight"
    return {
        names.flat(network, name[: -len(ending)]): place
        for name, place in weights.items()
        if name.endswith(ending)
    }


def layers_for(
    places: Mapping[str, Place], file: LoraFile, network: str, name: str, served: str
) -> dict[str, Layer]:
    """The layers of a file for `network`, each of which has a place of its size.

    `served` is the name of the served model. InvalidRequest where one does not fit.
    """
    layers = file.layers.get(network, {})
    for layer, change in layers.items():
        place = places.get(layer)
        if place is None or _plain(place.shape) != _plain(change.shape):
            shape = list(place.shape) if place else "none"
            why = f"{network}'s {layer} is {list(change.shape)} there and {shape} here"
            allowed = f"a LoRA for {served}, but it is for {file.model} ({why})"
            raise InvalidRequest("loras", name, allowed)
    return layers


def merged(
    places: Mapping[str, Place],
    changes: Iterable[tuple[Mapping[str, Layer], float]],
    values: Callable[[str], np.ndarray],
) -> dict[str, np.ndarray]:
    """The tensors that change, by their names, in single precision.

    `changes` are the layers and the scale of each LoRA, `values` gives a tensor without them.
    """
    tensors: dict[str, np.ndarray] = {}
    for layers, scale in changes:
        for layer, change in layers.items():
            place = places[layer]
            if place.tensor not in tensors:
                tensors[place.tensor] = values(place.tensor).astype(np.float32)
            delta = change.delta().reshape(place.shape)
            delta *= np.float32(scale)
            part = place.of(tensors[place.tensor])
            part += delta.transpose(place.axes)
    return tensors


class Block(NamedTuple):
    """What is added to a part of a tensor, seen as a matrix, as the product of two matrices.

    The part is all of the tensor, or its rows (axis 0) or columns (axis 1) from `start` on; `left`
    is [rows, rank] and `right` [rank, columns], of the part.
    """

    axis: int
    start: int
    left: np.ndarray
    right: np.ndarray

    @property
    def length(self) -> int:
        """Rows or columns of the part."""
        return self.right.shape[1] if self.axis else len(self.left)


def factors(
    places: Mapping[str, Place], changes: Iterable[tuple[Mapping[str, Layer], float]]
) -> dict[str, list[Block]]:
    """What `merged` adds to each tensor, in single precision: a block a layer, as they lie.

    Its rank is that of all LoRAs together.
    """
    found: dict[str, dict[int, Block]] = {}
    for layers, scale in changes:
        for layer, change in layers.items():
            place = places[layer]
            left, right = _turned(place, change, np.float32(scale))
            blocks = found.setdefault(place.tensor, {})
            if place.start in blocks:
                before = blocks[place.start]
                left = np.concatenate([before.left, left], 1)
                right = np.concatenate([before.right, right])
            blocks[place.start] = Block(place.axis, place.start, left, right)
    return {
        tensor: [block for _, block in sorted(blocks.items())] for tensor, blocks in found.items()
    }


def _turned(place: Place, change: Layer, scale: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """A layer's factors, [first axis, rank] and [rank, other axes], in the tensor's order."""
    up = change.up.reshape(len(change.up), -1) * (np.float32(change.scale) * scale)
    down = change.down_and_mid()
    if place.axes[0] == 0:
        down = down.reshape(-1, *place.shape[1:]).transpose(place.axes)
        return up, down.reshape(len(down), -1)
    if len(place.axes) != 2:
        raise ValueError(f"{place.tensor} has its weight's axes in the order {place.axes}")
    return down.T, up.T


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without a window of one pixel: such a convolution is a linear layer."""
    return shape[:2] if set(shape[2:]) <= {1} else shape
