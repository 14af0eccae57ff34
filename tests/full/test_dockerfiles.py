"""The Dockerfiles under hadolint."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("image", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=str)
def test_hadolint_has_nothing_to_say(image):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("requirements", "python"), [("fastdeploy", "3.8"), ("tritonserver", "3.12")]
)
def test_what_an_image_installs_is_to_be_had_for_its_python(requirements, python, tmp_path):
    glibc = ("2_31", "2_28", "2_27", "2_17")
    platforms = [f"--platform=manylinux_{version}_x86_64" for version in glibc]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    done = subprocess.run(
        [
            *(*command, "--only-binary=:all:", f"--python-version={python}", *platforms),
            *("--platform=manylinux2014_x86_64", "--target", tmp_path),
            *("-r", ROOT / "requirements" / f"{requirements}.txt"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stdout
