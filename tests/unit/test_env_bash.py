"""env_bash.sh with stand-ins for the programs that it calls."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.terminal import Terminal

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
    (folder / "scripts").mkdir()
    for script in ("environment.sh", "pip_progress.sh"):
        shutil.copy(ROOT / "scripts" / script, folder / "scripts")
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
        "python3 -m pip install --disable-pip-version-check -r requirements/fastdeploy.txt",
        "python3 scripts/export_stages.py my model --framework paddle --height 512",
    ]


def test_on_a_bare_machine_it_exports_through_pytorch(checkout):
    write(checkout.parent / "bin" / "fastdeployserver", "import triptych.launcher")
    done, calls = run(checkout)
    assert done.returncode == 0, done.stderr
    assert calls.splitlines() == [
        "make --no-print-directory -C . setup",
        "python -c import pip",
        "python -m pip install --disable-pip-version-check -e .[export]",
        "python scripts/export_stages.py stable-diffusion-v1-5/stable-diffusion-v1-5",
    ]
    assert done.stdout.startswith("Ready: ")
    assert done.stderr == "env_bash.sh: installing PyTorch, 6 GB, which takes minutes, once\n"
    (checkout / ".venv-export" / "lib" / "python3.12" / "site-packages" / "torch").mkdir(
        parents=True
    )
    done, _ = run(checkout)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_sees_the_packages_come(checkout, monkeypatch):
    python = checkout / ".venv-export" / "bin" / "python"
    write(python, "#!/bin/sh\n[ $2 != pip ] || printf 'Collecting torch==2\nCollecting numpy\n'")
    monkeypatch.setenv("PATH", f"{checkout.parent}/bin:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", "/dev/null")
    monkeypatch.setenv("FAILING", "nothing fails")
    terminal = Terminal("/bin/bash", checkout / "env_bash.sh")
    assert terminal.end() == 0
    assert "\r1: torch==2\x1b[K\r2: numpy\x1b[K\r\x1b[K" in terminal.shown


@pytest.mark.parametrize("model", ["modle.safetensors", "modle.ckpt", "./modle", "/no/modle"])
def test_a_mistyped_file_is_told_before_anything_is_installed(checkout, model):
    done, calls = run(checkout, model)
    assert (done.returncode, calls) == (1, "")
    assert done.stderr == f"env_bash.sh: there is no file or folder {model}\n"


def test_a_file_is_exported(checkout):
    (checkout.parent / "model.safetensors").touch()
    done, calls = run(checkout, "model.safetensors")
    assert done.returncode == 0
    assert calls.splitlines()[-1] == "python scripts/export_stages.py model.safetensors"


@pytest.mark.parametrize("more", [["--output", "/srv/models"], ["--name=ink"]])
def test_another_repository_or_name_is_not_what_make_run_draws_with(checkout, more):
    done, _ = run(checkout, "model", *more)
    assert done.returncode == 0
    assert "make run" not in done.stdout and "--model-repository=" in done.stdout


def test_where_no_environment_can_be_made_the_systems_python_exports(checkout):
    shutil.rmtree(checkout / ".venv-export")
    done, calls = run(checkout, "my model", failing="venv")
    assert done.returncode == 0, done.stderr
    assert "has neither venv nor virtualenv" in done.stderr
    assert calls.splitlines()[-2:] == [
        "python3 -m pip install --disable-pip-version-check -e .[export]",
        "python3 scripts/export_stages.py my model",
    ]


PYTHON_WITHOUT_VENV = """#!/bin/bash
[[ "$*" == *_base_executable* ]] && exec echo "$0"
[[ "$*" == "-m venv "* ]] && mkdir -p "$4/bin" && echo "ensurepip is not available" && exit 1
echo "$*" >> "$CALLS"
mkdir -p "${@: -1}/bin" && ln -s "$REAL" "${@: -1}/bin/python"
"""


def test_an_environment_is_made_by_virtualenv_where_there_is_no_venv(tmp_path):
    write(tmp_path / "python", PYTHON_WITHOUT_VENV)
    env = {**os.environ, "CALLS": str(tmp_path / "calls"), "REAL": sys.executable}
    command = [ROOT / "scripts" / "environment.sh", tmp_path / "python", tmp_path / "made"]
    for _ in range(2):  # the second time it is there
        made = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    made = f"-m virtualenv --quiet --clear {tmp_path / 'made'}\n"
    assert (tmp_path / "calls").read_text() == made


def test_an_environment_that_was_left_half_made_is_made_again(tmp_path):
    folder = tmp_path / "made"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    command = [ROOT / "scripts" / "environment.sh", sys.executable, folder]
    subprocess.run(command, check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "--version"], check=True)


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
    for name in (
        "scripts/export_stages.py",
        "scripts/environment.sh",
        "scripts/pip_progress.sh",
        "requirements/fastdeploy.txt",
    ):
        assert f"$root/{name}" in text
        assert (ROOT / name).is_file()
