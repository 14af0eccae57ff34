"""Setup installs nothing but what the locked lists name, each file by its hash."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTS = ("lock.txt", "lock-gpu.txt")


def packages(name):
    text = (ROOT / "requirements" / name).read_text()
    return [one for one in re.split(r"\n(?=\S)", text) if not one.startswith("#")]


@pytest.mark.parametrize("name", LISTS)
def test_every_locked_package_has_a_version_and_hashes(name):
    assert len(packages(name)) > 20
    for package in packages(name):
        assert re.match(r"[\w.-]+(\[\w+\])?==\S+", package), package
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package


def test_a_gpus_environment_is_a_processors_with_cuda():
    processors, gpus = ({one.split()[0] for one in packages(name)} for name in LISTS)
    alone = {one.split("==")[0] for one in processors - gpus}
    assert alone == {"onnxruntime", "onnxruntime-ep-openvino"}
    for one in gpus - processors:
        assert one.startswith(("onnxruntime-gpu==", "nvidia-"))


@pytest.mark.parametrize(
    ("gpu", "venv", "name"), [("", ".venv", "lock"), ("1", ".venv-gpu", "lock-gpu")]
)
def test_make_chooses_the_environment(gpu, venv, name):
    command = ["make", "--dry-run", "--always-make", "web", f"GPU={gpu}", "DRIVER=/dev/nvidiactl"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"scripts/setup.sh {venv} requirements/{name}.txt\n" in told
    assert f"exec {venv}/bin/python scripts/web.py" in told


def test_setup_requires_the_hashes():
    installs = re.findall(r"pip install .*", (ROOT / "scripts" / "setup.sh").read_text())
    assert len(installs) == 2
    assert '--require-hashes -r "$lock"' in installs[0]
    assert "--no-deps --no-build-isolation -e ." in installs[1]
