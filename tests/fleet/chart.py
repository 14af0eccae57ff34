"""The Helm chart's objects for some values, by `rendered.py` in the environment of its own."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

from tests.fleet.envoy import ENVOY, ROOT

CHART = ROOT / "deploy" / "helm" / "triptych"
VALUES = sorted(CHART.glob("values-*.yaml"))
PYTHON = ENVOY.with_name("python")


@functools.cache
def render(values: str) -> subprocess.CompletedProcess[str]:
    """The process that has rendered the chart with values, as YAML."""
    command = [PYTHON, ROOT / "tests" / "fleet" / "rendered.py", CHART]
    return subprocess.run(command, input=values, capture_output=True, text=True, check=False)


def made(values: str | Path) -> dict[tuple[str, str], dict]:
    """The objects by kind and name, for values as YAML or in a file; AssertionError if refused."""
    return {(one["kind"], one["metadata"]["name"]): one for one in _done(values)["objects"]}


def notes(values: str | Path) -> str:
    """What Helm says at the end."""
    return _done(values)["notes"]


def _done(values: str | Path) -> dict:
    done = render(values.read_text() if isinstance(values, Path) else values)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def pod(found: dict, name: str) -> dict:
    """The pod's spec of a part of the chart."""
    return found["Deployment", f"pictures-{name}"]["spec"]["template"]["spec"]


def flags(container: dict) -> dict[str, str]:
    """A container's flags that have values; of several alike the last."""
    return dict(flag.split("=", 1) for flag in container["command"] if "=" in flag)
