"""Tensors that a caller sends once and only names in the calls after, as request parameters.

`keep_INPUT: NAME` has the input INPUT kept under NAME; `kept_INPUT: NAME` takes what was kept in
place of what is sent as INPUT, for which a number a row will do. A caller chooses names that nobody
guesses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from triptych.errors import InvalidRequest


class KeptTensors:
    """The tensors last used, of `BYTES` together at the most, and one of any size."""

    BYTES = 2**28

    def __init__(self) -> None:
        self._tensors: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def complete(
        self, tensors: dict[str, np.ndarray], parameters: Mapping[str, object]
    ) -> dict[str, np.ndarray]:
        """`tensors` with those that were kept, as read-only arrays: always the same object.

        InvalidRequest for a name that is not known, or not any more.
        """
        for parameter, value in parameters.items():
            verb, _, name = parameter.partition("_")
            if verb not in ("keep", "kept") or name not in tensors:
                continue
            key = name, str(value)
            if verb == "keep":
                self._tensors[key] = np.array(tensors[name])
                self._tensors[key].flags.writeable = False
            elif key not in self._tensors:
                raise InvalidRequest(parameter, value, "what was kept, and lately")
            self._tensors.move_to_end(key)
            tensors = {**tensors, name: self._tensors[key]}
        while len(self._tensors) > 1 and self._bytes > self.BYTES:
            self._tensors.popitem(last=False)
        return tensors

    @property
    def _bytes(self) -> int:
        return sum(array.nbytes for array in self._tensors.values())
