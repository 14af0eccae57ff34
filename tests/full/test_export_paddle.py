"""The export through Paddle, in the environment that the script makes for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from random_models import write_model
from safetensors.torch import load_file, save_file
from tensorrt_parser import refusals

from demo.architecture import GUIDANCE_SCALE, NUM_INFERENCE_STEPS
from triptych.pipeline import Pipeline
from triptych_export import check, paddle_env, torch_road
from triptych_export.cli import CHECKOUT, main
from triptych_export.picture import psnr
from triptych_export.rebuild import rebuild
from triptych_export.source import open_source
from triptych_export.stages import example, stages

NETWORKS = ("text_encoder", "unet", "vae_decoder")


def of_tokens_alone(feeds: list[dict]) -> list[dict]:
    """`feeds` without what Paddle's text encoder does not take, which says nothing in them then."""
    for call in feeds:
        if "clip_skip" in call:
            call["clip_skip"][:] = 0
            call["prompt_weights"][:] = 1
    more = ("clip_skip", "prompt_weights")
    return [{name: call[name] for name in call if name not in more} for call in feeds]


def export(*arguments, **how) -> subprocess.CompletedProcess:
    script = [sys.executable, CHECKOUT / "scripts" / "export_stages.py"]
    return subprocess.run(
        [*script, *arguments, "--framework", "paddle"], capture_output=True, text=True, **how
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    done = export(model, "--output", "served", cwd=folder)  # as docs/moving.md has it
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", [*NETWORKS, "vae_encoder"])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 33, 41), (3, 8, 20)])
def test_onnx_computes_what_diffusers_computes(exported, model, name, batch, height, width):
    source = open_source(model)
    stage = stages(source)[name]
    feeds = [example(stage, source, batch, height, width, seed=7)]
    root = exported / "served"
    ours = of_tokens_alone(feeds)
    expected = torch_road.run(torch_road.load(stage, source), feeds)
    outputs = check.run_onnx(root / name / "1" / "model.onnx", ours)
    assert check.difference(outputs, expected) < 1e-4


@pytest.mark.parametrize("name", [*NETWORKS, "vae_encoder"])
def test_tensorrt_8_5_takes_the_graphs(exported, name):
    root = exported / "served"
    assert refusals(root / name / "1" / "model.onnx") == []


def test_a_picture_is_the_same_by_either_road(exported, model, tmp_path):
    assert main([str(model), "--output", str(tmp_path / "served")]) == 0
    request = '{"prompt": "red", "seed": 3, "num_inference_steps": 6, "height": 128, "width": 72}'
    roads = (exported / "served", tmp_path / "served")
    paddle, diffusers = (Pipeline(road).pixels(request) for road in roads)
    assert paddle.shape == (128, 72, 3)
    assert diffusers.std() > 1
    assert psnr(paddle, diffusers) >= 40


def test_the_demo_models_pictures_are_the_same_by_either_road(tmp_path):
    """What the checkout serves came by PyTorch; the same weights again, by Paddle."""
    served = CHECKOUT / "model_repository"
    rebuild(served, tmp_path / "checkpoint")
    steps, scale = str(NUM_INFERENCE_STEPS), str(GUIDANCE_SCALE)
    numbers = ("--num-inference-steps", steps, "--guidance-scale", scale)
    done = export(tmp_path / "checkpoint", "--output", tmp_path / "served", *numbers)
    assert done.returncode == 0, done.stderr
    roads = [Pipeline(root) for root in (tmp_path / "served", served)]
    for prompt in ("a red circle on a blue background", "a yellow sun over green hills at sunset"):
        request = json.dumps({"prompt": prompt, "seed": 1})
        paddle, diffusers = (road.pixels(request) for road in roads)
        assert paddle.shape == (256, 256, 3)
        assert psnr(paddle, diffusers) >= 40


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


@pytest.fixture(scope="module", params=["now", "early"])
def converted(request, model, tmp_path_factory) -> tuple[Path, str]:
    """A repository made from a folder exported for FastDeploy, and the kind of that folder."""
    folder = tmp_path_factory.mktemp("fastdeploy")
    exporter = Path(__file__).with_name("fastdeploy_exporter.py")
    subprocess.run(
        [paddle_env.python(), exporter, model, folder / "source", request.param],
        check=True,
        capture_output=True,
    )
    source, served = folder / "source", folder / "served"
    done = export(source, "--output", served)
    assert done.returncode == 0, done.stderr
    return folder, request.param


def test_programs_exported_for_fastdeploy_compute_the_same(converted, model):
    folder, kind = converted
    source = open_source(model)
    for name in NETWORKS:
        stage = stages(source)[name]
        height, width = (33, 41) if kind == "now" else (16, 16)
        feeds = [example(stage, source, 3, height, width, seed=7)]
        if "timestep" in feeds[0] and kind == "early":
            feeds[0]["timestep"] = feeds[0]["timestep"].round()
        ours = of_tokens_alone(feeds)
        expected = torch_road.run(torch_road.load(stage, source), feeds)
        path = folder / "served" / name / "1" / "model.onnx"
        assert check.difference(check.run_onnx(path, ours), expected) < 1e-4


def test_the_encoder_of_fastdeploy_is_left_out(converted, model):
    """It gives latents, and not the distribution that a seed's noise draws them from."""
    folder, _ = converted
    assert not (folder / "served" / "vae_encoder").exists()
    (folder / "served" / "vae_encoder").mkdir()
    done = export(folder / "source", "--output", folder / "served")
    (folder / "served" / "vae_encoder").rmdir()
    assert done.returncode == 1 and "is another model's" in done.stderr


def test_the_service_of_a_fastdeploy_folder_has_its_numbers(converted):
    folder, kind = converted
    numbers = json.loads((folder / "served" / "unet_loop" / "1" / "pipeline.json").read_text())
    side = 512 if kind == "now" else 128
    assert (numbers["height"], numbers["width"]) == (side, side)
    assert (numbers["vae_scale_factor"], numbers["latent_channels"]) == (8, 4)


def test_one_size_is_said_and_another_refused(converted, tmp_path):
    folder, kind = converted
    done = export(folder / "source", "--output", tmp_path / "served", "--height", "80")
    if kind == "early":
        assert done.returncode == 1
        assert "one picture size" in done.stdout
        assert "draw 128x128 pixels and no other size" in done.stderr
    else:
        assert done.returncode == 0
        path = tmp_path / "served" / "unet_loop" / "1" / "pipeline.json"
        assert json.loads(path.read_text())["height"] == 80
