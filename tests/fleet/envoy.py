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
DRAIN = CONFIG.with_name("drain.sh")
ENVOY = ROOT / ".venv-fleet" / "bin" / "envoy"


class Envoy:
    """A running Envoy; `grpc` is its address, "host:port", `admin` a port. A context manager."""

    def __init__(self, folder: Path, servers: list[tuple[str, str]]) -> None:
        """`servers`: the addresses of those behind it, running or not: gRPC's and HTTP's."""
        ports = free_ports(3)
        self.grpc, self.operation = (f"127.0.0.1:{port}" for port in ports[:2])
        self.admin = str(ports[2])
        self._log = folder / f"envoy{ports[0]}.log"
        self._config = folder / f"envoy{ports[0]}.yaml"
        self._config.write_text(yaml.safe_dump(on_loopback(ports, servers)))

    def __enter__(self) -> Envoy:
        # Hot restarts are by a file in /dev/shm, which stays.
        command = [ENVOY, "-c", self._config, "--concurrency", "1", "--disable-hot-restart"]
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

    def end(self, seconds: int) -> float:
        """End it as Kubernetes and Compose do: drain.sh, for so long at most, and SIGTERM.

        Returns the seconds that drain.sh took.
        """
        begun = time.monotonic()
        subprocess.run(["bash", DRAIN, str(seconds), self.admin], check=True)
        took = time.monotonic() - begun
        self.process.terminate()
        self.process.wait(20)
        return took

    def passing(self) -> float:
        """How many calls pass through it now."""
        return self._metrics()[
            'envoy_http_downstream_rq_active{envoy_http_conn_manager_prefix="grpc"}'
        ]

    def stats(self) -> dict[str, float]:
        """Its counters and gauges of the servers, by the end of their names."""
        prefix, label = "envoy_cluster_", '{envoy_cluster_name="servers"}'
        return {
            name.removesuffix(label).removeprefix(prefix): value
            for name, value in self._metrics().items()
            if name.startswith(prefix) and name.endswith(label)
        }

    def _metrics(self) -> dict[str, float]:
        """The samples on its metrics page, by name and labels."""
        with urllib.request.urlopen(f"http://{self.operation}/stats/prometheus") as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.operation}/ready") as answer:
                return answer.status == 200
        except OSError:
            return False


def on_loopback(ports: list[int], servers: list[tuple[str, str]]) -> dict:
    """The configuration with other addresses: ports of gRPC, operation and admin, and servers."""
    config = yaml.safe_load(CONFIG.read_text())
    grpc, operation = config["static_resources"]["listeners"]
    behind, admin = config["static_resources"]["clusters"]
    listening = [grpc["address"], operation["address"], config["admin"]["address"]]
    for address, port in zip(listening, ports):
        address["socket_address"].update(address="127.0.0.1", port_value=port)
    admin["load_assignment"]["endpoints"] = _endpoints([_address(f"127.0.0.1:{ports[2]}")])
    behind["type"] = "STATIC"
    made = []
    for server, health in servers:
        port = _address(health)["address"]["socket_address"]["port_value"]
        made.append({**_address(server), "health_check_config": {"port_value": port}})
    behind["load_assignment"]["endpoints"] = _endpoints(made)
    return config


def _address(text: str) -> dict:
    """The endpoint at HOST:PORT."""
    host, _, port = text.rpartition(":")
    return {"address": {"socket_address": {"address": host, "port_value": int(port)}}}


def _endpoints(endpoints: list[dict]) -> list[dict]:
    return [{"lb_endpoints": [{"endpoint": each} for each in endpoints]}]
