"""env_bash.sh with stand-ins for the programs that it calls."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
[[ "$*" == *"$FAILING"* ]] && exit 1
exit 0
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the script and stand-ins for python3, make and the environments' Python."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "env_bash.sh", folder)
    (tmp_path / "bin").mkdir()
    for name in ("python3", "make"):
        write(tmp_path / "bin" / name, STAND_IN)
    for environment in (".venv", ".venv-export"):
        write(folder / environment / "bin" / "python", STAND_IN)
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(checkout, *arguments, failing="nothing fails"):
    """The finished script and the calls it made, the checkout's path left out of them."""
    home = checkout.parent
    calls = home / "calls"
    calls.touch()
    env = {"PATH": f"{home}/bin:/usr/bin:/bin", "CALLS": str(calls), "FAILING": failing}
    done = subprocess.run(
        ["bash", "checkout/env_bash.sh", *arguments],
        cwd=home,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, calls.read_text().replace(f"{checkout}/", "").replace(str(checkout), ".")


def test_in_fastdeploys_container_it_exports_through_paddle(checkout):
    write(checkout.parent / "bin" / "fastdeployserver", "\x7fELF")
    done, calls = run(checkout, "my model", "--height", "512")
    assert done.returncode == 0, done.stderr
    assert calls.splitlines() == [
        "python3 -m pip install --quiet --disable-pip-version-check -r requirements/fastdeploy.txt",
        "python3 scripts/export_stages.py my model --framework paddle --height 512",
    ]


def test_on_a_bare_machine_it_exports_through_pytorch(checkout):
    write(checkout.parent / "bin" / "fastdeployserver", "import triptych.launcher")
    done, calls = run(checkout)
    assert done.returncode == 0, done.stderr
    assert calls.splitlines() == [
        "make --no-print-directory -C . setup",
        "python -m pip install --quiet --disable-pip-version-check -e .[export]",
        "python scripts/export_stages.py stable-diffusion-v1-5/stable-diffusion-v1-5",
    ]
    assert done.stdout.startswith("Ready: ")


@pytest.mark.parametrize("failing", ["pip install", "export_stages.py", "setup"])
def test_a_failure_ends_it(checkout, failing):
    done, calls = run(checkout, "--precision", "fp16-storage", failing=failing)
    assert done.returncode != 0
    assert failing in calls.splitlines()[-1]
    assert "Ready" not in done.stdout
    if failing == "pip install":
        assert "without a network" in done.stderr


def test_its_script_and_requirements_are_there():
    text = (ROOT / "env_bash.sh").read_text()
    for name in ("scripts/export_stages.py", "requirements/fastdeploy.txt"):
        assert f"$root/{name}" in text
        assert (ROOT / name).is_file()
