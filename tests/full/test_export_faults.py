"""What goes wrong in an export is one line, and the repository stays as it was."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import contents
from random_models import write_sdxl
from safetensors.torch import save_file
from single_file_layout import state_dict
from transformers import CLIPTokenizer

from triptych_export import cli, service_files, torch_export
from triptych_export.cli import CHECKOUT, main


def refuses(capsys, *arguments) -> str:
    """The one line that a command fails with."""
    assert main([str(one) for one in arguments]) == 1
    said = capsys.readouterr().err
    (line,) = (line for line in said.splitlines() if line.startswith("export_stages: "))
    assert "Traceback" not in said
    return line


def test_a_picture_that_is_not_the_pipelines_fails(served, model, monkeypatch, capsys):
    """Networks that are right are not enough: here the scheduler is another."""
    before = contents(served)
    as_saved = service_files.as_in_pipeline
    other = {"prediction_type": "v_prediction"}
    monkeypatch.setattr(service_files, "as_in_pipeline", lambda *file: {**as_saved(*file), **other})
    assert "dB from that of diffusers' pipeline" in refuses(capsys, model, "--output", served)
    assert contents(served) == before


def test_added_tokens_that_the_text_encoder_has_not_are_refused(model, tmp_path, capsys):
    source = Path(shutil.copytree(model, tmp_path / "source"))
    tokenizer = CLIPTokenizer.from_pretrained(source / "tokenizer")
    tokenizer.add_tokens(["<cat-toy>"])
    tokenizer.save_pretrained(source / "tokenizer")
    line = refuses(capsys, source, "--output", tmp_path / "served")
    assert "save them together" in line


@pytest.mark.parametrize("missing", ["tokenizer/tokenizer.json", "scheduler/scheduler_config.json"])
def test_what_is_missing_is_found_before_a_network_is_exported(
    model, tmp_path, monkeypatch, capsys, missing
):
    source = Path(shutil.copytree(model, tmp_path / "source"))
    (source / missing).unlink()
    monkeypatch.setattr(torch_export, "export_stage", lambda *_: pytest.fail("began"))
    assert missing.split("/")[0] in refuses(capsys, source, "--output", tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_a_value_that_the_framework_fails_at_is_one_line(model, tmp_path, capsys):
    source = Path(shutil.copytree(model, tmp_path / "source"))
    config = source / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": "silly"}))
    line = refuses(capsys, source, "--output", tmp_path / "served")
    assert "text_encoder does not load: " in line and "silly" in line


def test_a_file_in_the_way_is_one_line(model, tmp_path, capsys):
    (tmp_path / "file").write_text("here")
    for output in (tmp_path / "file", tmp_path / "file" / "served"):
        assert "file" in refuses(capsys, model, "--output", output)
    assert (tmp_path / "file").read_text() == "here"


def test_sdxls_weights_in_paddles_layout_are_refused_for_good(tmp_path, capsys):
    source = write_sdxl(tmp_path / "source")
    index = json.loads((source / "model_index.json").read_text())
    index["_ppdiffusers_version"] = "0.29.0"
    (source / "model_index.json").write_text(json.dumps(index))
    line = refuses(capsys, source, "--output", tmp_path / "served")
    assert "in diffusers' layout" in line and "--framework" not in line


def test_a_checkout_that_serves_sdxl_is_a_template_for_others(model, tmp_path, monkeypatch):
    template = shutil.copytree(CHECKOUT / "model_repository", tmp_path / "model_repository")
    shutil.copytree(template / "text_encoder", template / "text_encoder_2")
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    assert main([str(model), "--output", str(tmp_path / "served")]) == 0
    assert not (tmp_path / "served" / "text_encoder_2").exists()


def test_without_room_for_what_is_read_another_folder_is_advised(served, model, tmp_path):
    before = contents(served)
    save_file(state_dict(model), tmp_path / "m.safetensors")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, CHECKOUT / "scripts/export_stages.py", tmp_path / "m.safetensors"]
    done = subprocess.run(
        [*command, "--config", model, "--output", served],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"export_stages: {scratch}: File too large: ") and "TMPDIR" in line
    assert contents(served) == before
    assert not list(scratch.rglob("*.safetensors"))


def test_a_full_disk_is_one_line(served, model):
    before = contents(served)
    done = subprocess.run(
        [sys.executable, CHECKOUT / "scripts/export_stages.py", model, "--output", served],
        capture_output=True,
        text=True,
        # As much as a file can hold; a network is more.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"export_stages: {served}: File too large: ")
    assert contents(served) == before
