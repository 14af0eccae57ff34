"""Pictures that are kept for an hour, so that a client can fetch them by URL.

A picture's name says until when its address is good, and the address has a signature of the name.
So any gateway that shares the place, and the secret in it, knows which addresses it has to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from triptych.gateway.errors import Problem

SECONDS = 3600
MAX_BYTES = 256 * 1024 * 1024

SECRET = "secret"
"""The file that signs: the first gateway makes it, and none gives it to anybody."""

SECRET_BYTES = 32
TRIES = 50
THREADS = 8

_NAME = re.compile(r"until-([0-9]{10})-[A-Za-z0-9_-]{24}\.[a-z]+")
"""As put() chooses names: other files in the place are neither given nor deleted."""

log = logging.getLogger(__name__)


class Kept:
    """Pictures in memory, in a folder, or in any storage that fsspec writes to.

    `put` and `get` wait for the storage: `keep` and `find` are the same for asyncio, in threads of
    their own, so that a storage that does not answer holds up nothing else. In memory and in a
    folder, pictures that have expired are deleted, and the oldest beyond MAX_BYTES. Other storage
    has rules of its own for that, which do not list all pictures for each new one.
    """

    def __init__(self, place: str | None = None) -> None:
        """`place`: a folder, or a URL that fsspec opens; in memory with None.

        ValueError if nothing can be kept there.
        """
        place = place or f"memory://{secrets.token_hex(16)}"
        try:
            self._storage, self._root = fsspec.core.url_to_fs(place)
            self._secret = self._shared_secret()
        except Exception as error:  # each kind of storage has its own
            raise ValueError(f"--pictures-folder: {place} cannot be used: {error}") from error
        self._threads = ThreadPoolExecutor(THREADS)
        self._deleting = threading.Lock()  # fsspec's memory must not lose what is being listed
        self._deletes = isinstance(self._storage, (LocalFileSystem, MemoryFileSystem))

    async def keep(self, file: bytes, ending: str) -> str:
        """`put` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self.put, file, ending
        )

    async def find(self, name: str, signature: str) -> bytes | None:
        """`get` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self.get, name, signature
        )

    def put(self, file: bytes, ending: str) -> str:
        """Keep a picture; its name and query below /images/, good for SECONDS.

        Problem 503 if it cannot be kept.
        """
        name = f"until-{int(time.time()) + SECONDS}-{secrets.token_urlsafe(18)}.{ending}"
        try:
            # Whole before anybody has its address: nothing has to be replaced at once.
            self._storage.pipe_file(self._path(name), file)
            if self._deletes:
                with self._deleting:
                    self._delete_old()
        except Exception as error:
            log.error("a picture cannot be kept: %s", error)
            told = "the picture cannot be kept now: ask for response_format b64_json"
            raise Problem(503, told) from error
        return f"{name}?signature={self._signature(name)}"

    def get(self, name: str, signature: str) -> bytes | None:
        """The picture at that address; None for a wrong or an expired one, or without a picture.

        Problem 503 if the storage does not answer.
        """
        if _until(name) <= time.time():
            return None
        if not hmac.compare_digest(self._signature(name).encode(), signature.encode()):
            return None
        try:
            return self._storage.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        except Exception as error:
            log.error("a picture cannot be read: %s", error)
            raise Problem(503, "the picture cannot be read now: try again later") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _signature(self, name: str) -> str:
        return hmac.digest(self._secret, name.encode(), "sha256").hex()

    def _shared_secret(self) -> bytes:
        """That of all gateways with this place, which the first of them makes."""
        path = self._path(SECRET)
        for _ in range(TRIES):
            try:
                secret = self._storage.cat_file(path)
            except FileNotFoundError:
                with (
                    contextlib.suppress(FileExistsError),  # another gateway was faster
                    self._storage.open(path, "xb") as file,
                ):
                    file.write(secrets.token_bytes(SECRET_BYTES))
                continue
            if len(secret) == SECRET_BYTES:
                return secret
            time.sleep(0.1)  # another gateway is writing it
        raise ValueError(f"{path} does not have {SECRET_BYTES} bytes; delete it")

    def _delete_old(self) -> None:
        found = self._storage.find(self._root, maxdepth=1, detail=True)
        size = 0
        for path in sorted(found, reverse=True):
            until = _until(path.rpartition("/")[2])
            if until:
                size += found[path]["size"]
                if size > MAX_BYTES or until <= time.time():
                    with contextlib.suppress(FileNotFoundError):  # another gateway has done it
                        self._storage.rm_file(path)


def _until(name: str) -> int:
    """The time.time() at which a picture of that name expires; 0 for no picture's name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0
