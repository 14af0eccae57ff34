"""A UNet whose deep part runs in some calls, and in the others is what it was before.

It has two sessions: the network's own graph with the deep features as one more output, and
`shallow.onnx`, its last layer, which takes them as one more input. Both are loaded when they are
first asked for: a call without them costs no more than ever.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from triptych.denoise.deep_cache import DeepCache
from triptych.errors import InvalidRequest, Unavailable
from triptych.fastdeploy import onnx_nodes, sessions
from triptych.fastdeploy.bound import Bound
from triptych.fastdeploy.declared import ONNX_TYPES
from triptych.fastdeploy.device_rows import RowCopies
from triptych.fastdeploy.lru import Lru


class DeepCached:
    """The UNet, of which some calls run the last layer alone."""

    def __init__(
        self,
        path: Path,
        start: Callable[[bytes], onnxruntime.InferenceSession],
        bound_to: tuple[Sequence[int], tuple[str, int]] | None = None,
    ) -> None:
        """`path` is that of the network's graph, `bound_to` the batches and the device of a Bound.

        InvalidRequest where the graph has no shallow one beside it.
        """
        beside = path.with_name(path.name.replace("model", "shallow", 1))
        if not beside.exists():
            allowed = f"1: this model has no {beside.name}, export it again"
            raise InvalidRequest("cache_interval", "over 1", allowed)
        shallow = start(beside.read_bytes())
        types = _types(shallow)
        *self._shallow_takes, self._deep = types
        whole = start(onnx_nodes.with_output(path.read_bytes(), self._deep))
        self._copies: RowCopies | None = None
        runs = []
        for session, stays in ((whole, self._deep), (shallow, "")):
            outputs = [session.get_outputs()[0].name, *([stays] if stays else [])]
            bound = None
            if bound_to is not None:
                batches, device = bound_to
                self._copies = self._copies or RowCopies(types[self._deep], device)
                more = {"stays": stays, "copies": self._copies}
                bound = Bound(session, _types(session), outputs, batches, device, **more)
            runs.append(
                functools.partial(sessions.compute, session, bound, _types(session), outputs)
            )
        self._whole, self._shallow = runs

    def run(self, tensors: Mapping[str, np.ndarray], asked: DeepCache, features: Lru) -> np.ndarray:
        """The network's output for a call; `features` keeps what later calls of its images take.

        Raises Unavailable, with the image's name, where they are not there any more.
        """
        for name in asked.gone:
            features.drop(name)
        batch, *size = tensors["sample"].shape
        counts = [image.rows for image in asked.images]
        if sum(counts) != batch:
            raise InvalidRequest("deep_cache", len(counts), f"images of {batch} rows in all")
        if len({image.due for image in asked.images}) > 1:
            allowed = "images for all of which the deep part runs, or for none"
            raise InvalidRequest("deep_cache", "some that are due", allowed)
        if asked.images[0].due:
            parts = {name: [tensor] for name, tensor in tensors.items()}
            output, deep = self._whole(parts, batch)
            for image, rows in zip(asked.images, self._split(deep, counts)):
                of = image.since, image.rows, *size
                features.put(image.name, (of, rows), rows.nbytes)
            return output
        kept = []
        for image in asked.images:
            of, rows = features.find(image.name) or (None, None)
            if of != (image.since, image.rows, *size):
                raise gone(image.name)
            kept.append(rows)
        parts = {name: [tensors[name]] for name in self._shallow_takes}
        return self._shallow({**parts, self._deep: kept}, batch)[0]

    def _split(self, deep: Any, counts: Sequence[int]) -> list[Any]:
        """The features of each image, which stay where they are computed."""
        if isinstance(deep, onnxruntime.OrtValue):
            return self._copies.split(deep, counts)
        parts = np.split(deep, np.cumsum(counts)[:-1])
        if self._copies is not None:  # of a run that no Bound could make
            return [self._copies.on_device(part) for part in parts]
        return [part.copy() for part in parts]


def gone(name: str) -> Unavailable:
    """The error of the image whose deep features have this name and are not kept any more."""
    return Unavailable(
        f"cache_interval: the deep features of image {name} are gone: unet was loaded again, has "
        "those of too many images, or is several instances without channel; try later"
    )


def _types(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    return {tensor.name: ONNX_TYPES[tensor.type] for tensor in session.get_inputs()}
