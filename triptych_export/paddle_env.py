"""Paddle's environment, apart from every other: made on first use, remade when its pins change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from triptych_export.errors import ExportError

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".venv-paddle"
REQUIREMENTS = CHECKOUT / "requirements" / "paddle.txt"
OLDEST, NEWEST = (3, 8), (3, 12)
"""Pythons that paddlepaddle 2.6.2 is built for."""


def is_current() -> bool:
    """Whether this process runs in Paddle's environment."""
    return Path(sys.prefix).resolve() == FOLDER.resolve()


def python() -> Path:
    """The interpreter of Paddle's environment, which is made if it is not there yet."""
    interpreter, installed = FOLDER / "bin" / "python", FOLDER / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if installed.is_file() and installed.read_text(encoding="utf-8") == wanted:
        return interpreter
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise ExportError(
            f"Paddle 2.6.2 needs Python 3.8 to 3.12, this is {sys.version.split()[0]}: "
            "run the script with one of those"
        )
    print(f"making {FOLDER} (about 2.1 GB, some minutes)", file=sys.stderr)
    shutil.rmtree(FOLDER, ignore_errors=True)
    if subprocess.run([CHECKOUT / "scripts" / "environment.sh", sys.executable, FOLDER]).returncode:
        raise ExportError(f"{FOLDER.name} cannot be made")
    install = [interpreter, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]
    if subprocess.run(install).returncode != 0:
        raise ExportError(
            f"pip could not install {REQUIREMENTS.name}; without a network, make {FOLDER.name} on "
            "a machine of the same kind and copy it here, or point pip to a local index"
        )
    installed.write_text(wanted, encoding="utf-8")
    return interpreter
