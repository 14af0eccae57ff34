"""The folder of LoRA files: a name is a file's, without its ending."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Tuple

from triptych import config_pbtxt
from triptych.errors import InvalidRequest
from triptych.lora import files, models, request
from triptych.lora.request import Lora

ENDING = ".safetensors"


class Adapter(NamedTuple):
    """A LoRA as a request uses it: the state of its file, and how much of it.

    `version` changes when the file is replaced.
    """

    name: str
    scale: float
    version: str


Adapters = Tuple[Adapter, ...]
"""A set of them, which has its own merged weights."""


class LoraFolder:
    """Looked at anew each time: files come, go and change while the server runs."""

    def __init__(self, path: Path, text_width: int | None = None) -> None:
        """`text_width` is that of the text which the model's UNet reads, if it is known."""
        self._path = path
        self._text_width = text_width

    @classmethod
    def of(cls, unet: Path) -> LoraFolder:
        """The folder of the model whose UNet is served from the folder `unet`.

        It is `loras` there, or what the parameter `loras` of the config.pbtxt names.
        """
        path = unet / "config.pbtxt"
        config = config_pbtxt.read(path) if path.exists() else {}
        named = config_pbtxt.parameters(config)
        usual = config_pbtxt.accelerators(config).get("opt_shape", {})
        width = usual.get("encoder_hidden_states", "").split()[-1:]
        known = int(width[0]) if width and width[0].isdecimal() else None
        return cls(unet / named.get("loras", "loras"), known)

    def names(self) -> list[str]:
        """Of all files that a request can name, sorted; none where there is no such folder."""
        try:
            files = [entry.name for entry in self._path.iterdir()]
        except OSError:
            return []
        stems = (name[: -len(ENDING)] for name in files if name.endswith(ENDING))
        return sorted(filter(request.is_name, stems))

    def offered(self) -> list[str]:
        """`names` without those of files for a model whose UNet reads text of another width.

        Such a file stays where the weights in its repository are replaced by another model's.
        """
        return [name for name in self.names() if self._may_fit(name)]

    def path(self, name: str) -> Path:
        """The file of a LoRA, which need not be there."""
        return self._path / f"{name}{ENDING}"

    def find(self, loras: Iterable[Lora]) -> Adapters:
        """The adapters of a request, in the order of their names, without those of scale 0.

        InvalidRequest for a name that has no file, with the names that are most like it.
        """
        found = []
        for lora in sorted(loras):
            version = self.version(lora.name)
            if lora.scale:
                found.append(Adapter(lora.name, lora.scale, version))
        return tuple(found)

    def version(self, name: str) -> str:
        """What identifies the present state of a LoRA's file; InvalidRequest if it has none."""
        try:
            state = self.path(name).stat()
        except (OSError, ValueError):
            raise InvalidRequest("loras", name, self._instead(name)) from None
        return f"{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"

    def changed(self, adapters: Adapters, networks: Iterable[str]) -> set[str]:
        """The networks that the adapters' files have layers for.

        `networks` are the model's own. InvalidRequest as `files.networks`, and for a file with
        layers for another. A file is read once for each state that it is in.
        """
        found, own = set(), set(networks)
        for one in adapters:
            changed = _networks(self.path(one.name), one.name, one.version)
            for network in sorted(changed - own):
                model = models.of_network(network)
                why = f"it has layers for {network}"
                allowed = f"a LoRA for {self._served}, but it is for {model} ({why})"
                raise InvalidRequest("loras", one.name, allowed)
            found |= changed
        return found

    @property
    def _served(self) -> str:
        """The name of the model that the folder belongs to."""
        return "this model" if self._text_width is None else models.by_width(self._text_width)

    def _may_fit(self, name: str) -> bool:
        if self._text_width is None:
            return True
        try:
            width = _text_width(self.path(name), name, self.version(name))
        except InvalidRequest:
            return True  # a request for it is told what is wrong
        return width in (None, self._text_width)

    def _instead(self, name: str) -> str:
        known = self.offered()
        if not known:
            return "none: this server has no LoRA files"
        lower = {one.lower(): one for one in known}
        near = difflib.get_close_matches(name.lower(), lower, 3, 0.5)
        if near:
            return f"the names of files in its folder, as {', '.join(lower[one] for one in near)}"
        more = ", ..." if len(known) > 8 else ""
        return f"the names of files in its folder: {', '.join(known[:8])}{more}"


@functools.lru_cache(maxsize=1024)
def _networks(path: Path, name: str, version: str) -> frozenset[str]:
    return frozenset(files.networks(path, name))


@functools.lru_cache(maxsize=1024)
def _text_width(path: Path, name: str, version: str) -> int | None:
    return files.text_width(path, name)
