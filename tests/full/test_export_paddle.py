"""The export through Paddle, in the environment that the script makes for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from random_models import write_model
from safetensors.torch import load_file, save_file

from triptych_export import check, torch_road
from triptych_export.cli import CHECKOUT
from triptych_export.source import open_source
from triptych_export.stages import example, stages

NETWORKS = ("text_encoder", "unet", "vae_decoder")


def export(*arguments) -> subprocess.CompletedProcess:
    script = [sys.executable, CHECKOUT / "scripts" / "export_stages.py"]
    return subprocess.run(
        [*script, *arguments, "--framework", "paddle"], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    done = export(model, "--output", folder / "served", "--vae-encoder", folder / "vae_encoder")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", [*NETWORKS, "vae_encoder"])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 33, 41), (3, 8, 20)])
def test_onnx_computes_what_diffusers_computes(exported, model, name, batch, height, width):
    source = open_source(model)
    stage = stages(source)[name]
    feeds = [example(stage, source, batch, height, width, seed=7)]
    root = exported if name == "vae_encoder" else exported / "served"
    expected = torch_road.run(torch_road.load(stage, source), feeds)
    outputs = check.run_onnx(root / name / "1" / "model.onnx", feeds)
    assert check.difference(outputs, expected) < 1e-4


def test_native_files_lie_beside(exported):
    for name in NETWORKS:
        folder = exported / "served" / name / "1"
        assert {path.name for path in folder.glob("model.*")} == {
            "model.onnx",
            "model.pdmodel",
            "model.pdiparams",
        }


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_weights_that_ppdiffusers_would_make_up_are_an_error(exported, model, tmp_path, part):
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    path = broken / f"{part}.safetensors"
    tensors = load_file(path)
    del tensors[max(tensors)]
    save_file(tensors, path, {"format": "pt"})
    done = export(broken, "--output", tmp_path / "served")
    assert done.returncode == 1
    assert "weights missing or unfit" in done.stderr
    assert not (tmp_path / "served").exists()
