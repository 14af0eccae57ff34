"""Tensors that a caller sends once and only names in the calls after, as request parameters.

`keep_INPUT: NAME` has the input INPUT kept under NAME once the call has succeeded; `kept_INPUT:
NAME` takes what was kept in place of what is sent as INPUT, for which a number a row will do. A
caller chooses names that nobody guesses. So it does for deep features, see `deep_cache`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from triptych.errors import InvalidRequest
from triptych.fastdeploy.lru import Lru


class KeptTensors:
    """The tensors used last, which take about `BYTES` of memory together; one may be larger."""

    BYTES = 2**28
    LONGEST_NAME = 64

    LEAST = 2**16
    """Bytes for which each counts at least, which bounds their number."""

    FEATURES_BYTES = 2**30
    """64 images of 512 x 512 with guidance have 336 MB of deep features in half precision."""

    def __init__(self) -> None:
        self.features = Lru(self.FEATURES_BYTES, self.LEAST)
        self._tensors = Lru(self.BYTES, self.LEAST)

    def complete(
        self, tensors: dict[str, np.ndarray], parameters: Mapping[str, object]
    ) -> dict[str, np.ndarray]:
        """`tensors` with those that were kept, and with copies of those that are to be.

        Both are read-only arrays, and the same object for a name in every call. Raises
        InvalidRequest for a name that is too long, not known, or not known any more.
        """
        for parameter, verb, key in _asked(tensors, parameters):
            input_name, name = key
            if verb == "keep":
                if not 0 < len(name) <= self.LONGEST_NAME:
                    allowed = f"a name of 1 to {self.LONGEST_NAME} characters"
                    raise InvalidRequest(parameter, name, allowed)
                tensor = np.array(tensors[input_name])
                tensor.flags.writeable = False
            else:
                tensor = self._tensors.find(key)
                if tensor is None:
                    raise InvalidRequest(parameter, name, "what was kept, and lately")
            tensors = {**tensors, input_name: tensor}
        return tensors

    def keep(self, tensors: dict[str, np.ndarray], parameters: Mapping[str, object]) -> None:
        """Keep what `complete` gave of a call that has succeeded; what is too much is dropped."""
        for _, verb, key in _asked(tensors, parameters):
            if verb == "keep":
                tensor = tensors[key[0]]
                self._tensors.put(key, tensor, tensor.nbytes)


def _asked(
    tensors: dict[str, np.ndarray], parameters: Mapping[str, object]
) -> list[tuple[str, str, tuple[str, str]]]:
    """The parameters that are about keeping: parameter, verb, and the input with its name."""
    asked = []
    for parameter, value in parameters.items():
        verb, _, input_name = parameter.partition("_")
        if verb in ("keep", "kept") and input_name in tensors:
            asked.append((parameter, verb, (input_name, str(value))))
    return asked
