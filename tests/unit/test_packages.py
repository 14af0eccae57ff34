"""What an installation that is no checkout has."""

import subprocess
import sys
from pathlib import Path

from setuptools import find_packages

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_folder_of_code_is_installed():
    found = set(find_packages(str(CHECKOUT), include=["triptych*"]))
    folders = {
        ".".join(path.parent.relative_to(CHECKOUT).parts)
        for package in ("triptych", "triptych_export")
        for path in (CHECKOUT / package).rglob("*.py")
    }
    assert found == folders


def test_the_export_loads_without_transformers_as_in_paddles_environment():
    code = "import sys; sys.modules['transformers'] = None; import triptych_export.export"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
