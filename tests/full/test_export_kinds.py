"""The export of models that differ from the usual ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from random_models import write_model

from triptych.pipeline import Pipeline
from triptych.tokenizer import Tokenizer
from triptych_export.cli import main
from triptych_export.picture import psnr


def test_a_latent_consistency_model_draws_as_in_diffusers(tmp_path):
    """Guidance goes to the UNet as an embedding: another scale gives another picture."""
    model = write_model(tmp_path / "model", time_cond_proj_dim=32)
    index = json.loads((model / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "LCMScheduler"]
    (model / "model_index.json").write_text(json.dumps(index))
    served = tmp_path / "served"
    assert main([str(model), "--output", str(served)]) == 0
    theirs = StableDiffusionPipeline.from_pretrained(model)
    theirs.set_progress_bar_config(disable=True)
    ours = Pipeline(served)
    pictures = {}
    for scale in (1, 3, 9):
        request = {"prompt": "red", "seed": 3, "num_inference_steps": 4, "height": 128}
        request = {**request, "width": 72, "guidance_scale": scale}
        pictures[scale] = ours.pixels(json.dumps(request))
        request["generator"] = torch.Generator("cpu").manual_seed(request.pop("seed"))
        expected = theirs(**request, output_type="np").images[0]
        assert psnr(pictures[scale], (expected * 255).round().astype(np.uint8)) >= 40
    assert psnr(pictures[1], pictures[9]) < 40


def test_added_tokens_come_out_of_the_tokenizer(tmp_path):
    added = ("<cat-toy>", "<cat-toy>_1", "<Style>")
    model = write_model(tmp_path / "model", added=added)
    assert main([str(model), "--output", str(tmp_path / "served")]) == 0
    tokenizer = Tokenizer(tmp_path / "served" / "tokenizer" / "1")
    first = json.loads((model / "text_encoder" / "config.json").read_text())["vocab_size"] - 3
    (ids,), _ = tokenizer.encode(["red <cat-toy> <style>"])
    assert ids[2:5].tolist() == [first, first + 1, first + 2]


def test_the_scheduler_is_the_one_that_diffusers_takes_and_what_is_left_out_is_said(
    model, tmp_path, capsys
):
    source = Path(shutil.copytree(model, tmp_path / "source"))
    index = json.loads((source / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (source / "model_index.json").write_text(json.dumps(index))
    assert main([str(source), "--output", str(tmp_path / "served")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum("safety_checker is left out" in line for line in said) == 1
    assert sum("dB from the framework's pipeline" in line for line in said) == 1
    config = json.loads((tmp_path / "served/unet_loop/1/scheduler_config.json").read_text())
    assert config["_class_name"] == "EulerDiscreteScheduler"
