"""What an installation that is no checkout has."""

from pathlib import Path

from setuptools import find_packages

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_folder_of_code_is_installed():
    found = set(find_packages(str(CHECKOUT), include=["triptych*"]))
    folders = {
        ".".join(path.parent.relative_to(CHECKOUT).parts)
        for package in ("triptych", "triptych_export")
        for path in (CHECKOUT / package).rglob("*.py")
    }
    assert found == folders
