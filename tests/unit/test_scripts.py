"""What people start by hand, with a Python that has nothing installed."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("script", ["client/client.py", "scripts/export_stages.py"])
def test_a_python_without_packages_is_told_what_to_do(script):
    command = [sys.executable, "-S", str(CHECKOUT / script), "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "No module named" in line and "pip install" in line
