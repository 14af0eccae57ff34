"""The loop's `predict_noise` by calls of the served model `unet`."""

from __future__ import annotations

import re
import secrets
import time
import uuid
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from triptych.denoise.deep_cache import DeepCache
from triptych.errors import InvalidRequest
from triptych.ipc import channel
from triptych.lora.folder import Adapters
from triptych.stages import deep_cache as deep_caches
from triptych.stages import loras, triton

_NOT_KEPT = re.compile(r"\bkept_\w+: got ")
"""How a `unet` that keeps tensors refuses a name that it does not know."""
_READS_NAME = re.compile(r"\b(loras|deep_cache): got ")
"""How a `unet` that adds LoRAs, or keeps deep features, refuses what is no list of them."""


class ServedUNet:
    """Sends each row of conditioning once; after that `unet` is told to take what it kept.

    When the loop has a row no longer, the next call tells `unet` to keep it no longer.

    Conditioning is by far the larger part of a call, and an image's is the same in all its calls,
    whoever shares them. Whether `unet` keeps tensors is found out by a probe, a call that names one
    that was never sent: only a refusal of that name turns keeping on. Calls go through Triton, or
    over the channel on which `unet` listens; of several instances to the one with this `number`, in
    turn. `model` is the name by which `unet` is served.

    Whether `unet` adds LoRAs, and whether it keeps deep features, is found out the same way, before
    the first call with some.
    """

    LOOK_AGAIN = 1.0
    """Seconds from one look for a channel that was not there to the next."""

    def __init__(self, model: str = "unet", number: int = 0) -> None:
        self._model = model
        self._number = number
        self._keeps: bool | None = None
        self._reads: set[str] = set()
        self._kept: dict[int, str] = {}
        self._gone: deque[tuple[str, str]] = deque()
        self._channel: channel.Channel | None = None
        self._next_look = 0.0

    def __call__(
        self,
        sample: np.ndarray,
        timestep: np.ndarray,
        conditioning: Mapping[str, Sequence[np.ndarray]],
        adapters: Adapters = (),
        deep_cache: DeepCache | None = None,
    ) -> np.ndarray:
        """The model's output, [N, channels, h, w], for what the loop calls with: see PredictNoise.

        Raises StageFailed, with `unet`'s own error, where the call fails, and InvalidRequest for
        adapters and a deep_cache where `unet` is run by a backend that knows nothing of them.
        """
        own = {"sample": sample, "timestep": timestep[:, np.newaxis]}

        def whole() -> dict[str, np.ndarray]:
            return {**own, **{name: np.stack(rows) for name, rows in conditioning.items()}}

        if adapters and not self._probe_reads(loras.PARAMETER, whole):
            raise InvalidRequest("loras", adapters[0].name, loras.NOWHERE)
        if deep_cache and not self._probe_reads(deep_caches.PARAMETER, whole):
            raise InvalidRequest("cache_interval", "over 1", deep_caches.NOWHERE)
        more = {**loras.parameters(adapters), **deep_caches.parameters(deep_cache)}
        if self._keeps is None:
            output = self._probe(whole(), next(iter(conditioning)))
            if output is not None and not more:
                return output
        if not self._keeps:
            return self._call(whole(), more)
        try:
            return self._call_keeping(own, conditioning, more)
        except triton.StageFailed as error:
            # Who answers next may be another process, even one that keeps nothing.
            self._keeps, self._reads = None, set()
            self._kept.clear()
            self._gone.clear()
            if not _NOT_KEPT.search(str(error)):
                raise
        return self(sample, timestep, conditioning, adapters, deep_cache)

    def _probe_reads(self, parameter: str, whole: Callable[[], dict[str, np.ndarray]]) -> bool:
        """Whether `unet` refuses a parameter's value that is none, and does not overlook it.

        Only a refusal counts: a backend that knows nothing of LoRAs draws without.
        """
        if parameter not in self._reads:
            try:
                self._call(whole(), {parameter: "?"})
            except TypeError:  # this Triton's requests have no parameters
                pass
            except triton.StageFailed as error:
                found = _READS_NAME.search(str(error))
                if found is None or found[1] != parameter:
                    raise
                self._reads.add(parameter)
        return parameter in self._reads

    def _probe(self, inputs: dict[str, np.ndarray], name: str) -> np.ndarray | None:
        """Set `_keeps`; the call's output, if `unet` made it in spite of the unknown name."""
        output = None
        try:
            output = self._call(inputs, {f"kept_{name}": uuid.uuid4().hex})
        except TypeError:  # this Triton's requests have no parameters
            pass
        except triton.StageFailed as error:
            if not _NOT_KEPT.search(str(error)):
                raise
            self._keeps = True
            return None
        self._keeps = False
        return output

    def _call_keeping(
        self,
        own: dict[str, np.ndarray],
        conditioning: Mapping[str, Sequence[np.ndarray]],
        more: Mapping[str, str],
    ) -> np.ndarray:
        inputs, parameters, sent = dict(own), dict(more), []
        for name, rows in conditioning.items():
            new = {id(row): row for row in rows if id(row) not in self._kept}
            names = {known: secrets.token_hex(8) for known in new}
            every = [names.get(id(row)) or self._kept[id(row)] for row in rows]
            parameters[f"kept_{name}"] = " ".join(every)
            if new:
                parameters[f"keep_{name}"] = " ".join(names.values())
            inputs[name] = np.stack([*new.values()]) if new else _stand_in(rows)
            sent += [(name, row, names[known]) for known, row in new.items()]
        gone = defaultdict(list)
        while self._gone:  # which other threads add to
            name, known_as = self._gone.popleft()
            gone[name].append(known_as)
        parameters.update({f"drop_{name}": " ".join(known) for name, known in gone.items()})
        output = self._call(inputs, parameters)
        for name, row, known_as in sent:
            self._remember(name, row, known_as)
        return output

    def _remember(self, name: str, row: np.ndarray, known_as: str) -> None:
        """The loop's very object, for as long as the loop has it: its id is then another's."""
        self._kept[id(row)] = known_as
        weakref.finalize(row, self._forget, name, id(row)).atexit = False

    def _forget(self, name: str, row: int) -> None:
        known_as = self._kept.pop(row, None)
        if known_as is not None:
            self._gone.append((name, known_as))

    def _call(self, inputs: dict[str, np.ndarray], parameters: Mapping[str, str]) -> np.ndarray:
        # The channel does without the axis that Triton's config.pbtxt has and takes off again.
        flat = {**inputs, "timestep": inputs["timestep"][:, 0]}
        for _ in range(2):  # where `unet` was loaded again, it listens elsewhere
            if self._channel is None and time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + self.LOOK_AGAIN
                self._channel = channel.connect(self._model, self._number)
            if self._channel is None:
                break
            try:
                return self._channel.call(flat, parameters)
            except channel.ChannelFailed as error:
                raise triton.StageFailed(str(error)) from None
            except OSError:
                self._channel.close()
                self._channel, self._next_look = None, 0.0
        rows = len(inputs["sample"])
        whole = {name: _padded(tensor, rows) for name, tensor in inputs.items()}
        return triton.call(self._model, whole, "out_sample", parameters=parameters)


def _stand_in(rows: Sequence[np.ndarray]) -> np.ndarray:
    """What is sent for rows that `unet` has kept: as small as its config.pbtxt allows.

    That leaves [tokens, channels] free, but has numbers for the channels of [channels, h, w] and
    for the length of a vector, which Triton checks.
    """
    first, *others = rows[0].shape
    free = len(others) == 1
    return np.zeros((len(rows), 1 if free else first, *[1] * len(others)), np.float32)


def _padded(tensor: np.ndarray, rows: int) -> np.ndarray:
    """With zeros after its rows: Triton wants as many of each input."""
    if len(tensor) == rows:
        return tensor
    whole = np.zeros((rows, *tensor.shape[1:]), tensor.dtype)
    whole[: len(tensor)] = tensor
    return whole
