"""Setup installs nothing but what requirements/lock.txt names, each file by its hash."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_locked_package_has_a_version_and_hashes():
    text = (ROOT / "requirements" / "lock.txt").read_text()
    packages = [one for one in re.split(r"\n(?=\S)", text) if not one.startswith("#")]
    assert len(packages) > 20
    for package in packages:
        assert re.match(r"[\w.-]+(\[\w+\])?==\S+", package), package
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package


def test_setup_requires_the_hashes():
    installs = re.findall(r"pip install .*", (ROOT / "scripts" / "setup.sh").read_text())
    assert len(installs) == 2
    assert "--require-hashes -r requirements/lock.txt" in installs[0]
    assert "--no-deps --no-build-isolation -e ." in installs[1]
