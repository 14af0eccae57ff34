"""The examples in README.md and docs/, run against the server: Python by page, commands each.

What is not run is named here, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.gateway.running import Gateway

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
"""README_CN.md has README.md's blocks: tests/unit/test_readmes.py."""

OWN_PICTURE = "needs a picture of the reader's; tests/server/test_from_pictures.py"
NOT_RUN = {
    "make serve": "listens on the usual ports; tests/server/test_scripts.py runs it on others",
    "make web": "listens on the usual ports; tests/server/test_scripts.py runs it on others",
    "fastdeployserver --model-repository": "as make serve",
    "export TRIPTYCH_SECRET": "as make serve; tests/rare/test_models.py",
    "triptych models": "needs a second model; tests/rare/test_models.py",
    "triptych gateway": "does not end; tests/server/test_gateway.py runs it",
    '.venv/bin/triptych stages "a red circle" --steps 10 --trace': "tests/server/test_commands.py",
    "pip install": "of PyTorch",
    "bash env_bash.sh": "downloads a model; tests/unit/test_env_bash.py runs it with stand-ins",
    "python scripts/train_demo.py": "hours on a GPU",
    "python scripts/evaluate_demo.py": "needs PyTorch",
    "python scripts/export_stages.py": "needs PyTorch; tests/full/test_export.py",
    "python scripts/screenshot_page.py": "a minute; tests/server/test_page.py draws too",
    "python scripts/draw_samples.py": "it would change what is in the checkout",
    '.venv/bin/python client/client.py "a blue circle on a yellow background" --image': OWN_PICTURE,
    '.venv/bin/python client/client.py "a green star" --image': OWN_PICTURE,
    '.venv/bin/triptych draw "a green star" --image': OWN_PICTURE,
    "curl -s localhost:7860/v1/images/edits": OWN_PICTURE,
    "docker compose": "needs Docker",
    "helm install": "needs Helm and a cluster; tests/fleet/test_chart.py renders the chart",
    "MODELS=/srv/models docker compose": "needs Docker",
}


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands() -> list[tuple[str, str]]:
    """(page, command) of every command in a block of bash."""
    return [
        (page.name, line)
        for page in PAGES
        for block in blocks(page, "bash")
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
        if line.strip()
    ]


def is_run(command: str) -> bool:
    return not any(command.startswith(prefix) for prefix in NOT_RUN)


@pytest.fixture(scope="module")
def gateway(server):
    with Gateway(server.grpc) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def addresses(server, gateway):
    """What the pages call the servers -> where they are."""
    return {
        "localhost:8000": server.http,
        "localhost:8001": server.grpc,
        "localhost:8002": server.metrics,
        "localhost:7860": gateway.url.removeprefix("http://"),
    }


def here(text: str, addresses: dict[str, str]) -> str:
    for usual, address in addresses.items():
        text = text.replace(usual, address)
    return text


@pytest.fixture
def folder(tmp_path):
    """The checkout as it is after `make setup`, but for what the command writes."""
    for path in CHECKOUT.iterdir():
        if not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "command"), [(page, one) for page, one in commands() if is_run(one)]
)
def test_a_command_does_what_it_should(folder, addresses, page, command):
    if command.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("no curl on PATH")
    command = here(command, addresses)
    # What `make setup` installed is there already.
    command = command.replace("make run", "make --assume-old=.venv/.set-up run")
    for name in ("client/client.py", "triptych stages", "triptych models"):
        command = command.replace(name, f"{name} --url {addresses['localhost:8001']}")
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
        assert (folder / name).stat().st_size > 1000
    assert run.stdout or written


def test_what_is_not_run_is_in_the_pages():
    """A reason for a command that no page has is forgotten here."""
    lines = [command for _, command in commands()]
    for prefix in NOT_RUN:
        assert any(line.startswith(prefix) for line in lines), prefix


def readers_mask() -> Image.Image:
    """The upper half is transparent: drawn anew."""
    pixels = np.random.RandomState(0).randint(0, 256, (256, 256, 4), np.uint8)
    pixels[:128, :, 3], pixels[128:, :, 3] = 0, 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_a_pages_python_runs_from_its_beginning_to_its_end(page, addresses, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readers_mask().save("mask.png")
    names: dict = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        exec(compile(here(block, addresses), str(page), "exec"), names)
    written = re.findall(r"[\"'](\w+\.png)[\"']", page.read_text())
    assert written
    for name in written:
        assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link
