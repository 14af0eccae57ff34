"""What --embedding and --lora change in SDXL, as diffusers changes it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from random_models import louder, write_model, write_sdxl
from safetensors.torch import load_file, save_file
from test_single_file import export

from tests import lora_files
from triptych.pipeline import Pipeline
from triptych_export.picture import psnr

SIZE = {"height": 64, "width": 96, "num_inference_steps": 4, "guidance_scale": 5.0}
WIDTHS = {"clip_l": 32, "clip_g": 64}


def write(path, **counts):
    """A file with so many random vectors of each name; 0 for one without an axis of them."""
    torch.manual_seed(6)
    save_file(
        {name: torch.randn(*[count] * (count > 0), WIDTHS[name]) for name, count in counts.items()},
        path,
    )
    return path


def drawn(ours, prompt) -> np.ndarray:
    return ours.pixels(json.dumps({"prompt": prompt, "seed": 3, **SIZE}))


def drawn_by_diffusers(theirs, prompt) -> np.ndarray:
    theirs.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(3)
    picture = theirs(prompt, **SIZE, generator=generator, output_type="np").images[0]
    return (picture * 255).round().astype(np.uint8)


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
    for path in files:
        vectors = load_file(path)
        for name, end in (("clip_l", ""), ("clip_g", "_2")):
            theirs.load_textual_inversion(
                vectors[name],
                token=path.stem,
                text_encoder=getattr(theirs, f"text_encoder{end}"),
                tokenizer=getattr(theirs, f"tokenizer{end}"),
            )
    pictures = {}
    for prompt in ("red my-style blue", "red toy", "red blue"):
        pictures[prompt], expected = drawn(ours, prompt), drawn_by_diffusers(theirs, prompt)
        assert psnr(pictures[prompt], expected) >= 40
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


LAYERS = {
    "unet": {
        "down_blocks.1.attentions.0.proj_in": (64, 64),
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k": (64, 96),
        "up_blocks.1.resnets.0.conv1": (32, 96, 3, 3),
    },
    "text": {
        "text_model.encoder.layers.0.mlp.fc2": (32, 64),
        "text_model.encoder.layers.1.self_attn.q_proj": (32, 32),
    },
    "text_2": {
        "text_model.encoder.layers.1.mlp.fc2": (64, 128),
        "text_model.encoder.layers.2.self_attn.q_proj": (64, 64),
    },
}


def test_loras_are_added_to_all_three_networks(tmp_path):
    model, served = louder(write_sdxl(tmp_path / "model")), tmp_path / "served"
    file = lora_files.write(tmp_path, "ink", lora_files.changes(5, **LAYERS), "kohya", 2)
    assert export(model, "--lora", f"{file}:0.75", "--output", served) == 0
    theirs = StableDiffusionXLPipeline.from_pretrained(model, add_watermarker=False)
    theirs.load_lora_weights(str(file), adapter_name="ink")
    theirs.set_adapters(["ink"], [0.75])
    picture = drawn(Pipeline(served), "red")
    assert psnr(picture, drawn_by_diffusers(theirs, "red")) >= 40
    scales = {"unet": 0.75, "text_encoder": 0.75, "text_encoder_2": 0.75}
    for network in scales:
        theirs.set_adapters(["ink"], [{**scales, network: 0.0}])
        assert psnr(picture, drawn_by_diffusers(theirs, "red")) < 35, network


def test_a_lora_of_a_network_that_the_model_has_not_is_refused(tmp_path, capsys):
    model = write_model(tmp_path / "model")
    changes = lora_files.changes(0, unet={}, text={}, text_2=LAYERS["text_2"])
    file = lora_files.write(tmp_path, "x", changes, "peft")
    assert export(model, "--lora", file, "--output", tmp_path / "served") == 1
    assert "it is for SDXL (text_encoder_2 is not here)" in capsys.readouterr().err
