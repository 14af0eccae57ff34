"""Paths that Triton and its Python models can work with, in place of those that they cannot.

Triton puts a model's path, as it is, into a shell's command line that starts the model's process: a
blank or a quote in it breaks that line. The Python in that process takes file names for ASCII,
whatever the locale and PYTHONUTF8 say; a name with other letters cannot be handed to C++ there.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from pathlib import Path

from triptych.server import Unfit, flags

REPOSITORIES = ("--model-repository", "--model-store")
"""Triton's two names for the flag that names a repository of models."""

_PLAIN = re.compile("[A-Za-z0-9_./+,:=@%-]+")
_LONGEST = 48
"""Characters for a temporary folder's path, as that of a socket in it may have 107 in all."""


def is_plain(path: str) -> bool:
    """Whether Triton can take this path wherever it uses it."""
    return _PLAIN.fullmatch(path) is not None


def temporary_folder() -> Path:
    """The temporary folder of this machine, or another where its path is not plain or too long.

    Raises Unfit if none can be written to.
    """
    try:
        usual = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise Unfit(f"no temporary folder: {error.strerror}: set TMPDIR to one") from None
    for folder in (usual, "/tmp", "/var/tmp"):
        if is_plain(folder) and len(folder) <= _LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    raise Unfit(
        f"TMPDIR={usual}: allowed: a path of at most {_LONGEST} ASCII characters, without blanks"
    )


def plain(path: Path, link: Path) -> Path:
    """`path` if Triton can take it, else `link`, which is made to lead to it."""
    if is_plain(str(path.absolute())):
        return path
    link.symlink_to(path.absolute())
    return link


def with_plain_repositories(arguments: list[str], folder: Path) -> list[str]:
    """`arguments` with links in `folder` in place of repositories whose paths are not plain."""
    links = (folder / f"repository-{number}" for number in itertools.count())

    def reachable(repository: str) -> str:
        return repository if "://" in repository else str(plain(Path(repository), next(links)))

    for flag in REPOSITORIES:
        arguments = flags.each(arguments, flag, reachable)
    return arguments


def check_repositories(arguments: list[str]) -> None:
    """Raise Unfit for a repository whose path is not plain, where no link can stand in for it."""
    for flag in REPOSITORIES:
        for repository in flags.values(arguments, flag):
            path = os.path.abspath(repository)
            if not is_plain(path):
                raise Unfit(f"{flag}={path}: allowed: a path in ASCII, without blanks")
