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
