"""Envoy with the project's configuration, in front of servers on loopback."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

import yaml

from triptych.server import supervise
from triptych.server.running import free_ports

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "helm" / "triptych" / "files" / "envoy.yaml"
ENVOY = ROOT / ".venv-fleet" / "bin" / "envoy"


class Envoy:
    """A running Envoy; `grpc` is its address, "host:port". A context manager."""

    def __init__(self, folder: Path, servers: list[str]) -> None:
        """`servers`: the gRPC addresses of those behind it, running or not."""
        ports = free_ports(3)
        self.grpc, self._operation = (f"127.0.0.1:{port}" for port in ports[:2])
        self._log = folder / "envoy.log"
        self._config = folder / "envoy.yaml"
        self._config.write_text(yaml.safe_dump(on_loopback(ports, servers)))

    def __enter__(self) -> Envoy:
        command = [ENVOY, "-c", self._config, "--concurrency", "1", "--use-dynamic-base-id"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*map(str, command), "--log-level", "warning"],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=supervise.end_with_parent,
            )
        deadline = time.monotonic() + 20
        while not self._ready():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    def stats(self) -> dict[str, float]:
        """Its counters and gauges of the servers, by the end of their names."""
        with urllib.request.urlopen(f"http://{self._operation}/stats/prometheus") as answer:
            lines = answer.read().decode().splitlines()
        prefix, label = "envoy_cluster_", 'envoy_cluster_name="servers"'
        return {
            line.partition("{")[0][len(prefix) :]: float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(prefix) and f"{{{label}}}" in line
        }

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._operation}/ready") as answer:
                return answer.status == 200
        except OSError:
            return False


def on_loopback(ports: list[int], servers: list[str]) -> dict:
    """The configuration with other addresses: ports of gRPC, operation and admin, and servers."""
    config = yaml.safe_load(CONFIG.read_text())
    grpc, operation = config["static_resources"]["listeners"]
    behind, admin = config["static_resources"]["clusters"]
    listening = [grpc["address"], operation["address"], config["admin"]["address"]]
    for address, port in zip(listening, ports):
        address["socket_address"].update(address="127.0.0.1", port_value=port)
    admin["load_assignment"]["endpoints"] = _endpoints([f"127.0.0.1:{ports[2]}"])
    behind["type"] = "STATIC"
    behind["load_assignment"]["endpoints"] = _endpoints(servers)
    return config


def _endpoints(addresses: list[str]) -> list[dict]:
    found = []
    for each in addresses:
        host, _, port = each.rpartition(":")
        address = {"socket_address": {"address": host, "port_value": int(port)}}
        found.append({"endpoint": {"address": address}})
    return [{"lb_endpoints": found}]
