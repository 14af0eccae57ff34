"""What folders hold."""

from __future__ import annotations

from pathlib import Path


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
