"""The one error that the command line prints as a line instead of a traceback."""

from __future__ import annotations

HAS_LIBRARIES = "`pip install .[export]` brings it, and so does env_bash.sh"
"""What is said where a library is missing."""


class ExportError(Exception):
    """The export cannot be done, or its result is not good; str() says why and what to do."""
