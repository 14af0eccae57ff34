"""What people start by hand, with a Python that has nothing installed."""

import subprocess
import sys
from importlib.machinery import PathFinder
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


@pytest.mark.parametrize(
    "prompt", ['a "red" circle', "a `red` 'circle'", "-5 degrees; snow", "", "costs $5, $(x) # new"]
)
def test_make_run_takes_any_prompt_as_it_is(tmp_path, prompt):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    (venv / ".set-up").touch()
    command = ["make", "--silent", "run", f"VENV={venv}", f"PROMPT={prompt}", "OUTPUT=my out.png"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    given = ["scripts/run.py", "--timeout", "86400", "-o", "my out.png", "--", prompt]
    assert done.stdout.splitlines() == given
    assert done.stderr == ""


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a driver here")
def test_make_with_a_gpu_is_refused_at_once_where_there_is_no_driver():
    command = ["make", "--silent", "web", "GPU=1"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "this machine has no NVIDIA driver" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("folder", ["benchmarks", "scripts"])
def test_no_script_has_the_name_of_a_package_that_others_import(folder):
    """Python looks into a script's own folder first: diffusers got benchmarks/requests.py once."""
    own = str(CHECKOUT / folder)
    elsewhere = [path for path in sys.path if path != own]
    for script in (CHECKOUT / folder).glob("*.py"):
        assert PathFinder.find_spec(script.stem, elsewhere) is None, script.name
