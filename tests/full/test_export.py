"""The export through PyTorch, on small models with random weights."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from folders import contents
from random_models import MERGES, write_model
from safetensors.torch import load_file, save_file
from tensorrt_parser import refusals
from transformers import CLIPTokenizer

from triptych_export import check, onnx_files, torch_road
from triptych_export.cli import CHECKOUT, main
from triptych_export.source import open_source
from triptych_export.stages import example, stages

NETWORKS = ("text_encoder", "unet", "vae_decoder")


def graph(exported: Path, name: str) -> Path:
    root = exported / "served"
    return root / name / "1" / "model.onnx"


@pytest.mark.parametrize("name", [*NETWORKS, "vae_encoder"])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 33, 41), (3, 8, 20), (5, 7, 6)])
def test_every_size_gives_what_diffusers_gives(exported, model, name, batch, height, width):
    source = open_source(model)
    stage = stages(source)[name]
    feeds = [example(stage, source, batch, height, width, seed=7, chunks=1 + batch // 2)]
    expected = torch_road.run(torch_road.load(stage, source), feeds)
    assert check.difference(check.run_onnx(graph(exported, name), feeds), expected) < 1e-4


@pytest.mark.parametrize("name", [*NETWORKS, "vae_encoder"])
def test_tensors_are_those_of_the_served_models(exported, model, name):
    stage = stages(open_source(model))[name]
    proto = onnx.load(str(graph(exported, name)))
    assert refusals(graph(exported, name)) == []
    assert [output.name for output in proto.graph.output] == [stage.output]
    shapes = {
        value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
    }
    assert shapes == stage.inputs
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
    ids = onnx.TensorProto.INT32
    assert all(types[key] == (ids if key in ("input_ids", "clip_skip") else 1) for key in types)


def test_the_service_finds_its_numbers(exported, model):
    served = exported / "served"
    expected = {
        "height": 256,
        "width": 256,
        "latent_channels": 4,
        "vae_scale_factor": 8,
        "scaling_factor": 0.5,
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
    }
    config = (model / "scheduler" / "scheduler_config.json").read_text()
    for stage in ("tokenizer", "unet_loop"):
        numbers = json.loads((served / stage / "1" / "pipeline.json").read_text())
        assert numbers.pop("vocab_size") == len(CLIPTokenizer.from_pretrained(model / "tokenizer"))
        assert numbers.pop("max_position_embeddings") == 77
        assert numbers.pop("text_encoder_layers") == 2
        colours = np.array(numbers.pop("latent_rgb"))
        assert colours.shape == (5, 3) and np.abs(colours).max() > 0.01
        assert numbers == expected
        assert (served / stage / "1" / "scheduler_config.json").read_text() == config


def test_the_tokenizer_reads_as_the_source(exported, model):
    folder = exported / "served" / "tokenizer" / "1"
    assert not (model / "tokenizer" / "vocab.json").exists()
    assert (folder / "merges.txt").read_text().splitlines()[1:] == MERGES
    ours = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    theirs = CLIPTokenizer.from_pretrained(model / "tokenizer")
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours("red blue bed").input_ids == theirs("red blue bed").input_ids


def test_a_new_repository_has_every_committed_model(exported):
    committed = CHECKOUT / "model_repository"
    for config in committed.glob("*/config.pbtxt"):
        assert (exported / "served" / config.relative_to(committed)).is_file()
    for code in committed.glob("*/1/*.py"):
        copy = exported / "served" / code.relative_to(committed)
        assert copy.read_bytes() == code.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16-storage"])
def test_weights_too_large_for_one_file_lie_beside(served, model, monkeypatch, precision):
    monkeypatch.setattr(onnx_files, "LARGEST_SINGLE_FILE", 100_000)
    arguments = ["--precision", precision, "--external-weights"]
    assert main([str(model), "--output", str(served), *arguments]) == 0
    source = open_source(model)
    for name in NETWORKS:
        folder = served / name / "1"
        assert {path.name for path in folder.glob("model*")} == {"model.onnx", "model.onnx.data"}
        assert (folder / "model.onnx").stat().st_size < 1_000_000
        modes = {path.stat().st_mode for path in folder.glob("model*")}
        assert len(modes) == 1
        feeds = [example(stages(source)[name], source, 2, 9, 10, seed=3)]
        expected = torch_road.run(torch_road.load(stages(source)[name], source), feeds)
        error = check.difference(check.run_onnx(folder / "model.onnx", feeds), expected)
        assert error < (1e-4 if precision == "fp32" else 2e-2)


def test_half_storage_halves_the_files_and_says_what_it_costs(served, model, capsys):
    whole = {name: (served / name / "1" / "model.onnx").stat().st_size for name in NETWORKS}
    assert main([str(model), "--output", str(served), "--precision", "fp16-storage"]) == 0
    for name in NETWORKS:
        path = served / name / "1" / "model.onnx"
        assert path.stat().st_size < 0.7 * whole[name]
        proto = onnx.load(str(path))
        stored = {w.data_type for w in proto.graph.initializer if np.prod(w.dims) >= 256}
        assert stored - {onnx.TensorProto.INT64} == {onnx.TensorProto.FLOAT16}
        assert proto.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert "with weights rounded to half precision" in capsys.readouterr().err


def test_half_storage_computes_with_rounded_weights_in_single_precision(served, model):
    """The graph as diffusers computes it, when every weight of diffusers is rounded."""
    assert main([str(model), "--output", str(served), "--precision", "fp16-storage"]) == 0
    source = open_source(model)
    for name in NETWORKS:
        feeds = [example(stages(source)[name], source, 2, 9, 10, seed=3)]
        module = torch_road.load(stages(source)[name], source)
        for weight in module.state_dict().values():
            if weight.numel() >= 256 and weight.is_floating_point():
                weight.copy_(weight.half().float())
        outputs = check.run_onnx(served / name / "1" / "model.onnx", feeds)
        assert check.difference(outputs, torch_road.run(module, feeds)) < 1e-4


def test_wrong_numbers_fail_and_leave_the_repository(served, model, monkeypatch, capsys):
    before = contents(served)
    right = check.run_onnx
    monkeypatch.setattr(check, "run_onnx", lambda *a: [1.001 * out for out in right(*a)])
    assert main([str(model), "--output", str(served)]) == 1
    assert "differs from the framework by 1.0" in capsys.readouterr().err
    assert contents(served) == before


@pytest.mark.parametrize("kind", ["missing", "shape", "surplus"])
@pytest.mark.parametrize(
    "weights",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_weights_that_do_not_fit_are_an_error(served, model, tmp_path, capsys, weights, kind):
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    tensors = load_file(broken / weights)
    key = max(tensors)
    if kind == "missing":
        del tensors[key]
    elif kind == "shape":
        tensors[key] = tensors[key].repeat_interleave(2, 0)
    else:
        tensors["surplus.weight"] = tensors[key].clone()
    save_file(tensors, broken / weights, {"format": "pt"})
    before = contents(served)
    assert main([str(broken), "--output", str(served)]) == 1
    assert weights.split("/")[0] in capsys.readouterr().err
    assert contents(served) == before


def test_a_model_saved_in_half_precision_alone_is_read(model, tmp_path):
    half = Path(shutil.copytree(model, tmp_path / "half"))
    for path in list(half.rglob("*model.safetensors")):
        tensors = {name: value.half() for name, value in load_file(path).items()}
        save_file(tensors, path.with_name(path.stem + ".fp16.safetensors"), {"format": "pt"})
        path.unlink()
    assert main([str(half), "--output", str(tmp_path / "served")]) == 0


def test_stable_diffusion_2_exports_with_its_prediction_type(tmp_path):
    second = write_model(tmp_path / "second", second=True)
    assert main([str(second), "--output", str(tmp_path / "served")]) == 0
    config = json.loads((tmp_path / "served/unet_loop/1/scheduler_config.json").read_text())
    assert config["prediction_type"] == "v_prediction"
    assert json.loads((tmp_path / "served/tokenizer/1/pipeline.json").read_text())["height"] == 384


def test_a_pickle_that_is_none_is_an_error(model, tmp_path, capsys):
    pickled = Path(shutil.copytree(model, tmp_path / "pickled"))
    path = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    assert main([str(pickled), "--output", str(tmp_path / "served")]) == 1
    assert "unet does not load" in capsys.readouterr().err
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_stopped_halfway_it_leaves_nothing(served, model, sent):
    before = contents(served)
    process = subprocess.Popen(
        [sys.executable, CHECKOUT / "scripts/export_stages.py", model, "--output", served],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (served / "unet" / ".new").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    assert process.wait(30) == 128 + sent
    assert "Traceback" not in process.stderr.read()
    assert contents(served) == before
    assert not list(served.rglob(".*"))


WITHOUT_ACCELERATE = """
import sys
from diffusers.utils import import_utils
import_utils._accelerate_available = False
from triptych_export.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_packages_that_it_does_not_need_are_not_advised(model, tmp_path):
    command = [sys.executable, "-c", WITHOUT_ACCELERATE, model, "--output", tmp_path / "served"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    assert "accelerate" not in done.stdout + done.stderr
