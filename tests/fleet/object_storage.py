"""Object storage on loopback: servers in S3's protocol, each in its own way."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import httpx

from tests.fleet.envoy import ENVOY
from tests.gateway.running import wait_for
from triptych.server import supervise
from triptych.server.running import free_ports

TOOLS = ENVOY.parent
PACKAGES = Path(sysconfig.get_path("purelib", vars={"base": str(TOOLS.parent)}))


class ObjectStorage:
    """A server with the bucket `pictures`; `env` is what its clients need. A context manager."""

    kinds = ("rclone", "moto")
    """rclone keeps files in a folder, and asks for keys; moto knows of conditional writes."""

    def __init__(self, kind: str, folder: Path) -> None:
        (port,) = free_ports(1)
        self._kind, self._folder, self._address = kind, folder, f"127.0.0.1:{port}"
        (folder / "pictures").mkdir()
        self.env = {
            "AWS_ENDPOINT_URL": f"http://{self._address}",
            "AWS_ACCESS_KEY_ID": "name",
            "AWS_SECRET_ACCESS_KEY": "word",
            "PYTHONPATH": str(PACKAGES),  # s3fs is not in .venv
        }

    def __enter__(self) -> ObjectStorage:
        rclone = f"rclone serve s3 --addr {self._address} --auth-key name,word".split()
        command = {
            "rclone": [*rclone, self._folder],
            "moto": ["moto_server", "-p", self._address.rpartition(":")[2]],
        }[self._kind]
        with (self._folder.with_suffix(".log")).open("wb") as log:
            self._process = subprocess.Popen(
                [TOOLS / command[0], *command[1:]],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=supervise.end_with_parent,
            )
        wait_for(self._is_there)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(20)

    def _is_there(self) -> bool:
        assert self._process.poll() is None
        try:
            # moto makes a bucket of it; rclone has it, and asks for the key.
            httpx.put(f"http://{self._address}/pictures")
        except httpx.TransportError:
            return False
        return True
