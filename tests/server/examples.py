"""The examples in README.md and docs/, for tests that run them: Python by page, commands each.

What is not run is named here, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.gateway.running import Gateway
from tests.gateway.test_webhooks import KEY, SECRET
from triptych.gateway.webhooks import signed
from triptych.server.running import RunningServer

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
"""README_CN.md has README.md's blocks: tests/unit/test_readmes.py."""

QUICK = CHECKOUT / "docs" / "progress.md"
"""The page whose examples `make test` runs; `make test-rare` runs those of all others."""

OWN_PICTURE = "needs a picture of the reader's; tests/server/test_from_pictures.py"
NOT_RUN = {
    "git clone": "of an address that the reader knows",
    "make serve": "listens on the usual ports; tests/rare/test_scripts.py runs it on others",
    "make web": "listens on the usual ports; tests/rare/test_scripts.py runs it on others",
    ".venv/bin/fastdeployserver --model-repository": "as make serve",
    "export OTEL_EXPORTER_OTLP_ENDPOINT": "as make serve; tests/rare/test_tracing.py",
    "export TRIPTYCH_SECRET": "as make serve; tests/rare/test_models.py",
    ".venv/bin/triptych models --": "needs a second model; tests/rare/test_models.py",
    ".venv/bin/triptych gateway": "does not end; tests/server/test_gateway.py runs it",
    '.venv/bin/triptych stages "a red circle" --steps 10 --trace': "tests/server/test_commands.py",
    "python3 -m venv .venv-train": "of PyTorch",
    ".venv-train/bin/python": "as that",
    'make run PROMPT="a lighthouse at dawn"': "as the other one, of the reader's model",
    "bash env_bash.sh": "downloads a model; tests/unit/test_env_bash.py runs it with stand-ins",
    ".venv/bin/python scripts/export_stages.py": "it would change what is in the checkout",
    ".venv/bin/python scripts/screenshot_page.py": "a minute; tests/server/test_page.py draws too",
    ".venv/bin/python scripts/draw_samples.py": "it would change what is in the checkout",
    '.venv/bin/python client/client.py "a blue circle on a yellow background" --image': OWN_PICTURE,
    '.venv/bin/python client/client.py "a green star" --image': OWN_PICTURE,
    '.venv/bin/triptych draw "a green star" --image': OWN_PICTURE,
    "curl -s localhost:7860/v1/images/edits": OWN_PICTURE,
    "useradd ": "changes the machine; tests/unit/test_systemd.py reads the units",
    "install -d ": "likewise",
    "openssl rand ": "likewise",
    "cp deploy/systemd/": "likewise",
    "systemctl ": "likewise",
    "docker compose": "needs Docker",
    "docker build": "needs Docker; tests/unit/test_docker.py reads the file",
    "nvidia-cuda-mps-control": "needs an NVIDIA GPU",
    "echo quit | nvidia-cuda-mps-control": "likewise",
    "make run GPU=1": "likewise",
    "helm ": "needs Helm and a cluster; tests/fleet/test_chart.py renders the chart",
    "kubectl ": "needs a cluster",
    "MODELS=/srv/models docker compose": "needs Docker",
}


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands(page: Path) -> list[str]:
    """Every command in the page's blocks of bash."""
    return [
        line
        for block in blocks(page, "bash")
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
        if line.strip()
    ]


def is_run(command: str) -> bool:
    return not any(command.startswith(prefix) for prefix in NOT_RUN)


def here(text: str, server: RunningServer, gateway: Gateway) -> str:
    """An example with the addresses where the servers are, in place of the usual ones."""
    for usual, address in (
        ("localhost:8000", server.http),
        ("localhost:8001", server.grpc),
        ("localhost:8002", server.metrics),
        ("localhost:7860", gateway.url.removeprefix("http://")),
    ):
        text = text.replace(usual, address)
    return text


def checkout_in(folder: Path) -> None:
    """Make it the checkout as it is after `make setup`, but for what a command writes."""
    for path in CHECKOUT.iterdir():
        if not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)


def run_command(command: str, folder: Path, server: RunningServer, gateway: Gateway) -> None:
    """Run it in an empty folder, and check that it does what it should."""
    if command.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("no curl on PATH")
    checkout_in(folder)
    command = here(command, server, gateway)
    # What `make setup` installed is there already.
    command = command.replace("make run", "make --assume-old=.venv/.set-up run")
    for name in ("client/client.py", "triptych stages", "triptych models"):
        command = command.replace(name, f"{name} --url {server.grpc}")
    # Whoever reads the page has not activated .venv.
    folders = os.environ["PATH"].split(os.pathsep)
    outside = [path for path in folders if not path.startswith(sys.prefix)]
    env = {**os.environ, "PATH": os.pathsep.join(outside), "PYTHONNOUSERSITE": "1"}
    env.pop("PYTHONPATH", None)
    run = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command.replace("curl ", "curl --fail-with-body ")],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    written = re.findall(r"(?:-o|--trace|>) (\w+\.\w+)|open\(\"(\w+\.\w+)\", \"wb\"\)", command)
    for name in filter(None, (name for names in written for name in names)):
        assert (folder / name).stat().st_size > (0 if name.endswith(".txt") else 1000)
    assert run.stdout or written


def readers_mask() -> Image.Image:
    """The upper half is transparent: drawn anew."""
    pixels = np.random.RandomState(0).randint(0, 256, (256, 256, 4), np.uint8)
    pixels[:128, :, 3], pixels[128:, :, 3] = 0, 255
    return Image.fromarray(pixels)


def readers_webhook() -> dict:
    """What a reader's receiver of webhooks has at hand."""
    body = '{"id": "job-1", "state": "done"}'
    headers = signed(KEY, "job-1", int(time.time()), body)
    return {"secret": SECRET, "body": body, "headers": headers}


def run_python(page: Path, folder: Path, server: RunningServer, gateway: Gateway) -> None:
    """Run the page's Python from its beginning to its end; `folder` is the present one."""
    readers_mask().save("mask.png")
    names = {"__name__": "__main__", **readers_webhook()}
    for block in blocks(page, "python"):
        exec(compile(here(block, server, gateway), str(page), "exec"), names)
    written = re.findall(r"[\"'](\w+\.png)[\"']", page.read_text())
    assert written
    for name in written:
        assert (folder / name).stat().st_size > (0 if name.endswith(".txt") else 1000)
