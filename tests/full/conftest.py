"""A small model and what the export through PyTorch makes of it, once for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from random_models import write_model

from triptych_export.cli import main


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory) -> Path:
    """A folder with `served`, a repository."""
    folder = tmp_path_factory.mktemp("exported")
    numbers = ["--num-inference-steps", "20", "--guidance-scale", "5"]
    assert main([str(model), "--output", str(folder / "served"), *numbers]) == 0
    return folder


@pytest.fixture
def served(exported, tmp_path) -> Path:
    """A copy of the exported repository that a test may change."""
    return Path(shutil.copytree(exported / "served", tmp_path / "served"))
