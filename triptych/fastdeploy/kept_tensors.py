"""Rows of tensors that a caller sends once and only names in the calls after, by parameters.

`kept_INPUT: NAME NAME ...` names a row for each row of the call: they are the input INPUT.
`keep_INPUT: NAME ...` names the first rows of what is sent as INPUT, which are kept once the call
has succeeded; of the others nothing need be sent, and what is sent is not looked at.
`drop_INPUT: NAME ...` names rows that no call will name any more. A caller chooses names that
nobody guesses. So it does for deep features, see `deep_cache`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from triptych.errors import InvalidRequest
from triptych.fastdeploy.lru import Lru


class KeptTensors:
    """The rows used last, which take about `BYTES` of memory together; one may be larger."""

    BYTES = 2**28
    LONGEST_NAME = 64

    LEAST = 2**16
    """Bytes for which each counts at least, which bounds their number."""

    STACKED_BYTES = 2**26
    """Of whole inputs, as the last calls had them: the next call often has the same rows."""

    FEATURES_BYTES = 2**30
    """64 images of 512 x 512 with guidance have 336 MB of deep features in half precision."""

    def __init__(self) -> None:
        self.features = Lru(self.FEATURES_BYTES, self.LEAST)
        self._rows = Lru(self.BYTES, self.LEAST)
        self._stacked = Lru(self.STACKED_BYTES, self.LEAST)

    def complete(
        self, tensors: dict[str, np.ndarray], parameters: Mapping[str, object]
    ) -> dict[str, np.ndarray]:
        """`tensors` with those that consist of named rows.

        These are read-only arrays, and the same object for the same names. Raises InvalidRequest
        for a name that is too long, not known, or not known any more, and for rows that do not fit.
        """
        for name in tensors:
            self._drop(name, str(parameters.get(f"drop_{name}", "")).split())
        asked = _asked(tensors, parameters)
        rows = max((len(tensor) for tensor in tensors.values()), default=0)
        stacked = {
            name: self._stack(name, tensors[name], rows, *names) for name, names in asked.items()
        }
        return {**tensors, **stacked} if stacked else tensors

    def keep(self, tensors: dict[str, np.ndarray], parameters: Mapping[str, object]) -> None:
        """Keep what `complete` gave of a call that has succeeded; what is too much is dropped."""
        for name, (kept, new) in _asked(tensors, parameters).items():
            tensor = tensors[name]
            self._stacked.put((name, kept), tensor, tensor.nbytes)
            for one in new:
                row = np.array(tensor[kept.index(one)])
                self._rows.put((name, one), row, row.nbytes)

    def _drop(self, name: str, rows: list[str]) -> None:
        for one in rows:
            self._rows.drop((name, one))
        for key in self._stacked.keys() if rows else ():
            of, kept = key
            if of == name and not set(rows).isdisjoint(kept):
                self._stacked.drop(key)

    def _stack(
        self,
        name: str,
        sent: np.ndarray,
        rows: int,
        kept: tuple[str, ...],
        new: tuple[str, ...],
    ) -> np.ndarray:
        for one in new:
            if len(one) > self.LONGEST_NAME:
                allowed = f"names of at most {self.LONGEST_NAME} characters"
                raise InvalidRequest(f"keep_{name}", one, allowed)
        if len(new) > len(sent) or not set(new) <= set(kept):
            allowed = f"names of rows that are sent, and among those of kept_{name}"
            raise InvalidRequest(f"keep_{name}", " ".join(new), allowed)
        found = dict(zip(new, sent))
        for one in kept:
            row = found.get(one)
            if row is None:
                row = found[one] = self._rows.find((name, one))
            if row is None:
                raise InvalidRequest(f"kept_{name}", one, "what was kept, and lately")
        if len(kept) != rows:
            raise InvalidRequest(f"kept_{name}", f"{len(kept)} names", f"{rows}, one a row")
        same = None if new else self._stacked.find((name, kept))
        if same is not None:
            return same
        shapes = {row.shape for row in found.values()}
        if len(shapes) > 1:
            raise InvalidRequest(f"kept_{name}", str(sorted(shapes)), "rows of one shape")
        stacked = np.stack([found[one] for one in kept])
        stacked.flags.writeable = False
        return stacked


def _asked(
    tensors: dict[str, np.ndarray], parameters: Mapping[str, object]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Inputs that consist of named rows: the names of all, and of those that are new."""
    asked = {}
    for name in tensors:
        kept, new = (
            tuple(str(parameters.get(f"{verb}_{name}", "")).split()) for verb in ("kept", "keep")
        )
        if kept or new:
            asked[name] = kept, new
    return asked
