"""The Triton in the PyPI package nvidia-pytriton, run with this Python and its packages.

Nothing is written into the package. The layout of folders that the server needs is put together,
from links, in the run's own folder.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from importlib import metadata, util
from pathlib import Path

from triptych.server import Unfit, places, python

VERSION = "24.10"
INSTALL = "pip install 'triptych[serve]'"
OPEN_HOLES = "CVE-2025-23310, -23311, -23319, -23320, -23334"
"""What the embedded release is open to, mended in Triton 25.07."""
STACK = 2**30


def folder() -> Path | None:
    """Where the package has its Triton, or None without the package."""
    spec = util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(next(iter(spec.submodule_search_locations))) / "tritonserver"
    return found if (found / "bin" / "tritonserver").is_file() else None


def check(triton: Path) -> None:
    """Raise Unfit where this Python or its NumPy cannot work with that Triton."""
    if not _stub(triton).is_file():
        known = sorted(
            (path.name for path in (triton / "python_backend_stubs").iterdir()),
            key=lambda version: tuple(map(int, version.split("."))),
        )
        raise Unfit(
            f"Python {python.name()} has no Triton stub: use Python {known[0]} to {known[-1]}"
        )
    numpy = metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        raise Unfit(f"NumPy {numpy} does not work with Triton {VERSION}: pip install 'numpy<2'")


def link_backends(triton: Path, ours: Path, target: Path) -> None:
    """Fill `target` with Triton's Python backend, for this Python, and the backends in `ours`."""
    backend = target / "python"
    backend.mkdir(parents=True)
    for path in (*(triton / "backends" / "python").glob("*triton_python*"), _stub(triton)):
        shutil.copy2(path, backend)
    for path in ours.iterdir():
        if (path / "model.py").is_file():
            (target / path.name).symlink_to(path)


def environment(triton: Path, links: Path) -> dict[str, str]:
    """The environment in which that Triton and its Python models use this Python's packages.

    `links`: a folder for links to what is at paths that are not plain.

    The models' processes find these packages by the first python3 on PATH, as any Python does;
    they do not read PYTHONPATH.

    Raises Unfit if this Python has no shared library, which the models' processes are linked to.
    """
    env = dict(os.environ)
    libraries = triton.parents[1] / "nvidia_pytriton.libs"
    folders = [str(places.plain(libraries, links / "triton-libraries"))]
    library = python.shared_library()
    if library:
        folders.append(str(places.plain(library.parent, links / "python-libraries")))
    if env.get("LD_LIBRARY_PATH"):
        folders.append(env["LD_LIBRARY_PATH"])
    env["LD_LIBRARY_PATH"] = os.pathsep.join(folders)
    python_folder = places.plain(Path(sys.executable).parents[1], links / "python")
    env["PATH"] = os.pathsep.join((str(python_folder / "bin"), env.get("PATH", os.defpath)))
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    return env


def deepen_stacks() -> None:
    """Let the threads of servers started from here have stacks of `STACK` bytes.

    For each chunk of an HTTP body this Triton puts 16 bytes on the stack (CVE-2025-23310, -23311):
    3 MB in chunks of one byte overflow the usual 8 MiB. Only what is used of a stack takes memory.
    """
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        return  # where memory is counted as it is promised
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


def _stub(triton: Path) -> Path:
    return triton / "python_backend_stubs" / python.name() / "triton_python_backend_stub"
