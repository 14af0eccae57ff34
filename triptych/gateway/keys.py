"""Who has a key, and how much each may draw: a file that is read again when it changes."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from triptych.client import Overloaded, Refused
from triptych.gateway.files import version
from triptych.gateway.metrics import Counts

MINUTE = 60.0
"""Seconds."""

REFUSALS = (403, 429)
"""The statuses of what a key does not allow, now or ever, or has no room for."""

log = logging.getLogger(__name__)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Key(BaseModel):
    """An entry of the file. What is not said is not bounded.

    `sha256`: of the key, or of each of several, so that a key can be changed while both are good.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    sha256: Annotated[
        list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]],
        Field(min_length=1, max_length=8),
        BeforeValidator(_listed),
    ]
    pictures_at_a_time: Annotated[int, Field(ge=1)] | None = None
    pictures_a_minute: Annotated[int, Field(ge=1)] | None = None
    models: list[str] | None = None


class NotAllowed(Refused):
    """The key does not allow that model."""


class TooMany(Refused):
    """More pictures in one request than are ever drawn at a time; `allowed` says how many are."""

    def __init__(self, pictures: int, allowed: str) -> None:
        self.allowed = allowed
        super().__init__(f"pictures: got {pictures} in one request; allowed: {allowed}")


class OverLimit(Overloaded):
    """The key's pictures of this time are taken; `retry_after` in seconds, as a text."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = str(max(1, round(retry_after)))


class Caller:
    """Whoever has a key: what it allows, and what came of it since the gateway started."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.drawing = self.drawn = 0
        self.refused = dict.fromkeys(REFUSALS, 0)
        self._begun: deque[float] = deque()
        self._waiting = 0

    @contextmanager
    def room(self, pictures: int, model: str) -> Iterator[Callable[[], None]]:
        """Draw so many pictures of a model within; raises NotAllowed, TooMany or OverLimit.

        Gives what is to be called once the server has begun one of them. Pictures of which none has
        begun when the block ends are not counted among those of the minute.
        """
        self.check(pictures, model)
        self._check_room(pictures)
        waiting = pictures

        def begin() -> None:
            nonlocal waiting
            self._begun.extend([time.monotonic()] * waiting)
            self._waiting -= waiting
            waiting = 0

        self._waiting += pictures
        self.drawing += pictures
        try:
            yield begin
            begin()
            self.drawn += pictures
        finally:
            self._waiting -= waiting
            waiting = 0
            self.drawing -= pictures

    def answered(self, status: int) -> None:
        """Note how a request of this caller ended."""
        if status in self.refused:
            self.refused[status] += 1

    def allowed(self, there: Sequence[str]) -> list[str]:
        """Those of the server's models that the key allows, the one that is meant by none first.

        That is the one that is meant by none without a key, the first of `there`, or else the first
        of the key's.
        """
        if self.key.models is None:
            return list(there)
        own = [model for model in dict.fromkeys(self.key.models) if model in there]
        return sorted(own, key=lambda model: model != there[0])

    def check(self, pictures: int, model: str) -> None:
        """Raise NotAllowed or TooMany for what the key never allows."""
        key = self.key
        if key.models is not None and model not in key.models:
            raise NotAllowed(
                f"model: got {model!r}; allowed with this key: {', '.join(key.models)}"
            )
        most, a_minute = key.pictures_at_a_time, key.pictures_a_minute
        for bound, what in ((most, "at a time"), (a_minute, "a minute")):
            if bound is not None and pictures > bound:
                raise TooMany(pictures, f"{bound} {what} with this key")

    def _check_room(self, pictures: int) -> None:
        most, a_minute = self.key.pictures_at_a_time, self.key.pictures_a_minute
        if most is not None and self.drawing + pictures > most:
            raise OverLimit(f"{self.drawing} of {most} pictures with this key are being drawn", 2)
        now = time.monotonic()
        while self._begun and now - self._begun[0] >= MINUTE:
            self._begun.popleft()
        taken = len(self._begun) + self._waiting
        if a_minute is not None and (over := taken + pictures - a_minute) > 0:
            told = f"{taken} of {a_minute} pictures a minute with this key are taken"
            # Those that wait may yet be refused, which makes room.
            raise OverLimit(told, 2 if self._waiting else self._begun[over - 1] + MINUTE - now)


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Whose request it is; None where there are no keys."""


class Keys:
    """The callers of a file: a JSON list of objects with the fields of `Key`."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that is none."""
        self._path = path
        self._callers: dict[str, Caller] = {}
        self._by_hash: dict[str, Caller] = {}
        self._version = version(path)
        self._read()

    def caller(self, given: str) -> Caller | None:
        """Whoever has this key; as the file is now, or was when it last was one."""
        now = version(self._path)
        if now != self._version:
            self._version = now
            try:
                self._read()
            except ValueError as error:
                log.warning("%s; the keys stay as they were", error)
        return self._by_hash.get(hashlib.sha256(given.encode()).hexdigest())

    def counts(self) -> dict[str, Counts]:
        """By the key's name."""
        callers = sorted(self._callers.items())
        return {name: Counts(one.drawn, one.drawing, one.refused) for name, one in callers}

    def _read(self) -> None:
        try:
            keys = TypeAdapter(list[Key]).validate_json(self._path.read_bytes())
        except OSError as error:
            raise ValueError(f"keys: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{self._path}: {where}: {first['msg']}") from None
        hashes = [one for key in keys for one in key.sha256]
        for field, values in (("name", [key.name for key in keys]), ("sha256", hashes)):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"{self._path}: {field} {twice} stands there twice")
        callers = {key.name: self._callers.get(key.name) or Caller(key) for key in keys}
        for key in keys:
            callers[key.name].key = key
        self._callers = callers
        self._by_hash = {one: callers[key.name] for key in keys for one in key.sha256}
