"""A served repository back to the weights that it was exported from."""

from __future__ import annotations

import json
import resource
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from diffusers import DiffusionPipeline
from random_models import write_model
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from triptych_export.cli import CHECKOUT, main
from triptych_export.errors import ExportError
from triptych_export.rebuild import rebuild

COMMAND = CHECKOUT / "scripts" / "rebuild_checkpoint.py"
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def command(
    repository: Path, output: Path, limit: int = resource.RLIM_INFINITY
) -> subprocess.CompletedProcess:
    """The command; `limit`: bytes that a file can hold."""
    line = [sys.executable, str(COMMAND), str(repository), str(output)]
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Every weight of a folder in diffusers' layout, by part and name."""
    return {
        f"{part}/{name}": value
        for part, file in WEIGHTS.items()
        for name, value in load_file(folder / part / file).items()
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Stable Diffusion 1.x with no two weights alike."""
    folder = write_model(tmp_path_factory.mktemp("source") / "model")
    for part, file in WEIGHTS.items():
        weights = load_file(folder / part / file)
        random = {name: value + 0.1 * torch.randn_like(value) for name, value in weights.items()}
        save_file(random, folder / part / file, {"format": "pt"})
    (folder / "tokenizer" / "words.txt").write_text("blue\nred\n")
    return folder


@pytest.fixture(scope="module")
def served(model, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("served") / "repository"
    assert main([str(model), "--output", str(output)]) == 0
    return output


def same_files(model: Path, rebuilt: Path) -> None:
    """What is no weight comes back too."""
    configs = [
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        for folder in (model, rebuilt)
    ]
    assert configs[0] == configs[1]
    tokenizers = [
        CLIPTokenizer.from_pretrained(folder / "tokenizer") for folder in (model, rebuilt)
    ]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0]("red blue").input_ids == tokenizers[1]("red blue").input_ids
    words = [(folder / "tokenizer" / "words.txt") for folder in (model, rebuilt)]
    assert words[0].is_file() == words[1].is_file()
    assert not words[0].is_file() or words[0].read_text() == words[1].read_text()


def test_every_weight_comes_back_under_its_name(model, served, tmp_path):
    result = command(served, tmp_path)
    assert result.returncode == 0, result.stderr
    expected, found = state(model), state(tmp_path)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    same_files(model, tmp_path)


def test_an_encoder_that_is_not_served_is_zeros_and_not_exported_again(served, tmp_path, capsys):
    without, rebuilt = tmp_path / "without", tmp_path / "rebuilt"
    shutil.copytree(served, without, ignore=shutil.ignore_patterns("vae_encoder"))
    rebuild(without, rebuilt)
    vae = load_file(rebuilt / "vae" / WEIGHTS["vae"])
    encoder = [name for name in vae if name.startswith(("encoder.", "quant_conv."))]
    assert encoder and not any(vae[name].any() for name in encoder)
    assert main([str(rebuilt), "--output", str(without)]) == 0
    assert "vae_encoder is left out" in capsys.readouterr().err
    assert not (without / "vae_encoder").exists()
    assert main([str(rebuilt), "--output", str(shutil.copytree(served, tmp_path / "full"))]) == 1
    assert "vae_encoder is another model's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of", "pipeline"),
    [
        ({"time_cond_proj_dim": 32}, "LatentConsistencyModelPipeline"),
        ({"in_channels": 9}, "StableDiffusionInpaintPipeline"),
    ],
)
def test_the_pipeline_is_the_one_that_the_unet_was_made_for(tmp_path, of, pipeline):
    """With the scheduler's options as they are served: others set some of them anew."""
    model = write_model(tmp_path / "model", **of)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "_class_name": pipeline}))
    scheduler = model / "scheduler" / "scheduler_config.json"
    told = {**json.loads(scheduler.read_text()), "clip_sample": True, "skip_prk_steps": True}
    scheduler.write_text(json.dumps(told))
    served, rebuilt = tmp_path / "served", tmp_path / "rebuilt"
    assert main([str(model), "--output", str(served)]) == 0
    rebuild(served, rebuilt)
    ours, theirs = (DiffusionPipeline.from_pretrained(folder) for folder in (rebuilt, model))
    assert type(ours).__name__ == type(theirs).__name__ == pipeline
    assert ours.scheduler.config.clip_sample is True
    assert dict(ours.scheduler.config) == dict(theirs.scheduler.config)


def test_equal_weights_and_weights_in_half_precision_come_back_too(tmp_path):
    """A new model's norms are all ones and zeros, of which the graph keeps one each."""
    model = write_model(tmp_path / "model", second=True)
    served, rebuilt = tmp_path / "served", tmp_path / "rebuilt"
    assert main([str(model), "--output", str(served), "--precision", "fp16-storage"]) == 0
    rebuild(served, rebuilt)
    expected, found = state(model), state(rebuilt)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        stored = weight.half().float() if weight.numel() >= 256 else weight
        assert torch.equal(found[name], stored), name
    same_files(model, rebuilt)


def test_the_graphs_weights_are_named_as_in_the_state_dict(model, served):
    known = {name.split("/", 1)[1] for name in state(model)}
    for stage in ("text_encoder", "unet", "vae_decoder"):
        graph = onnx.load(str(served / stage / "1" / "model.onnx")).graph
        names = [t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        assert len(names) > 20 and {name.removesuffix(".T") for name in names} <= known


def test_a_repository_without_names_is_refused(served, tmp_path):
    bare = Path(shutil.copytree(served, tmp_path / "bare"))
    path = bare / "unet" / "1" / "model.onnx"
    graph = onnx.load(str(path))
    del graph.metadata_props[:]
    onnx.save_model(graph, str(path))
    with pytest.raises(ExportError, match="keeps no names of weights"):
        rebuild(bare, tmp_path / "rebuilt")
    assert not (tmp_path / "rebuilt").exists()


def refuses(repository: Path, output: Path, **limit: int) -> str:
    """The one line that the command fails with."""
    result = command(repository, output, **limit)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_a_repository_without_networks_is_refused(tmp_path):
    (tmp_path / "unet_loop" / "1").mkdir(parents=True)
    assert "scheduler_config.json" in refuses(tmp_path, tmp_path / "rebuilt")


def test_a_folder_without_the_model_is_refused(tmp_path):
    line = refuses(tmp_path, tmp_path / "rebuilt")
    assert line == f"rebuild_checkpoint: {tmp_path} holds no model sd_ensemble"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("unet/1/model.onnx", "no graph"),
        ("tokenizer/1/vocab.json", None),
        ("unet_loop/1/scheduler_config.json", "{}"),
        ("unet_loop/1/scheduler_config.json", '{"_class_name": "UnheardOfScheduler"}'),
    ],
)
def test_a_file_that_does_not_load_is_named(served, tmp_path, file, content):
    broken = Path(shutil.copytree(served, tmp_path / "broken"))
    (broken / file).unlink()
    if content is not None:
        (broken / file).write_text(content)
    named = broken / file if content else (broken / file).parent
    with pytest.raises(ExportError, match=f"{named} does not load: "):
        rebuild(broken, tmp_path / "rebuilt")


def test_what_cannot_be_written_is_one_line(served, tmp_path):
    (tmp_path / "file").write_text("here")
    line = refuses(served, tmp_path / "file" / "rebuilt")
    assert line.startswith("rebuild_checkpoint: ") and "Not a directory" in line
    line = refuses(served, tmp_path / "rebuilt", limit=100_000)
    assert line.startswith(f"rebuild_checkpoint: {tmp_path / 'rebuilt'}: File too large: ")


def test_a_library_that_is_missing_is_advised(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "triptych_export.rebuild", None)
    monkeypatch.setattr(sys, "argv", [str(COMMAND), "repository", "rebuilt"])
    assert runpy.run_path(str(COMMAND))["main"]() == 1
    assert "`pip install .[export]` brings it" in capsys.readouterr().err
