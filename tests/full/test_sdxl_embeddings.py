"""Textual inversion for SDXL: words of both text encoders, as diffusers adds them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from random_models import louder, write_model, write_sdxl
from safetensors.torch import load_file, save_file
from test_single_file import export

from triptych.pipeline import Pipeline
from triptych_export.picture import psnr

WIDTHS = {"clip_l": 32, "clip_g": 64}


def write(path, **counts):
    """A file with so many random vectors of each name; 0 for one without an axis of them."""
    torch.manual_seed(6)
    save_file(
        {name: torch.randn(*[count] * (count > 0), WIDTHS[name]) for name, count in counts.items()},
        path,
    )
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_embeddings_draw_as_in_diffusers(tmp_path, legacy):
    """Where SDXL's own rule finds the end token (`legacy`), an embedding is taken for it."""
    model = louder(write_sdxl(tmp_path / "model", legacy=legacy))
    files = [
        write(tmp_path / "my-style.safetensors", clip_l=2, clip_g=2),
        write(tmp_path / "toy.safetensors", clip_l=0, clip_g=0),
    ]
    assert export(model, "--embedding", *files, "--output", tmp_path / "served") == 0
    ours = Pipeline(tmp_path / "served")
    theirs = StableDiffusionXLPipeline.from_pretrained(model, add_watermarker=False)
    theirs.set_progress_bar_config(disable=True)
    for path in files:
        vectors = load_file(path)
        for name, end in (("clip_l", ""), ("clip_g", "_2")):
            theirs.load_textual_inversion(
                vectors[name],
                token=path.stem,
                text_encoder=getattr(theirs, f"text_encoder{end}"),
                tokenizer=getattr(theirs, f"tokenizer{end}"),
            )
    size = {"height": 64, "width": 96, "num_inference_steps": 4, "guidance_scale": 5.0}
    pictures = {}
    for prompt in ("red my-style blue", "red toy", "red blue"):
        pictures[prompt] = ours.pixels(json.dumps({"prompt": prompt, "seed": 3, **size}))
        generator = torch.Generator("cpu").manual_seed(3)
        expected = theirs(prompt, **size, generator=generator, output_type="np").images[0]
        assert psnr(pictures[prompt], (expected * 255).round().astype(np.uint8)) >= 40
    plain = pictures.pop("red blue")
    assert all(psnr(picture, plain) < 35 for picture in pictures.values())


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({"clip_l": 1}, "for both text encoders, named clip_l and clip_g"),
        ({"clip_g": 1}, "for both text encoders, named clip_l and clip_g"),
        ({"clip_l": 1, "clip_g": 2}, "1 vectors named clip_l and 2 named clip_g"),
    ],
)
def test_vectors_for_both_encoders_are_needed(tmp_path, capsys, counts, why):
    model, path = write_sdxl(tmp_path / "model"), write(tmp_path / "x.safetensors", **counts)
    assert export(model, "--embedding", path, "--output", tmp_path / "served") == 1
    assert why in capsys.readouterr().err


def test_sdxls_embeddings_are_for_no_other_model(tmp_path, capsys):
    path = write(tmp_path / "x.safetensors", clip_l=1, clip_g=1)
    model = write_model(tmp_path / "model")
    assert export(model, "--embedding", path, "--output", tmp_path / "served") == 1
    assert "SDXL's two text encoders, and this model has one" in capsys.readouterr().err
