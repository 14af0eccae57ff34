"""`make setup`'s script: what it shows while pip works, with a pip of a few lines."""

import shutil
from pathlib import Path

import pytest

from tests.server.terminal import Terminal

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup.sh"
PYTHON = """\
#!/bin/sh
case "$*" in *--require-hashes*) ;; *) exit 0 ;; esac
packages=VENV/lib/python3/site-packages
echo "Collecting one==1 (from -r lock.txt (line 1))"
echo "Collecting two==2 (from -r lock.txt (line 2))"
echo "Installing collected packages: one, two"
for name in one two; do
    sleep 1
    mkdir "$packages/$name.dist-info"
done
sleep 1
exit CODE
"""


@pytest.mark.parametrize("code", [0, 1])
def test_each_package_is_counted_as_it_comes_and_as_it_is_unpacked(tmp_path, code):
    venv = tmp_path / "venv"
    (tmp_path / "scripts").mkdir()
    for script in (SCRIPT, SCRIPT.with_name("pip_progress.sh")):
        shutil.copy(script, tmp_path / "scripts")
    (tmp_path / "lock.txt").write_text("one==1 \\\n    --hash=sha256:1\ntwo==2\n# a comment\n")
    packages = venv / "lib" / "python3" / "site-packages"
    (packages / "pip.dist-info").mkdir(parents=True)
    (venv / "bin").mkdir()
    python = venv / "bin" / "python"
    python.write_text(PYTHON.replace("VENV", str(venv)).replace("CODE", str(code)))
    python.chmod(0o755)
    terminal = Terminal("/bin/bash", tmp_path / "scripts" / "setup.sh", venv, "lock.txt")
    assert terminal.end() == code
    shown = terminal.shown.replace("\x1b[K", "").split("\r")
    assert shown[0] == f"make setup: installing packages into {venv}, which takes minutes, once"
    said = [line for line in dict.fromkeys(shown[1:]) if line.strip()]
    unpacking = [f"unpacking {count} of 2" for count in (0, 1, 2)]  # pip itself was there before
    assert said == ["1 of 2: one==1", "2 of 2: two==2", *unpacking]
