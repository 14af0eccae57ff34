"""The export of models that differ from the usual ones."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from random_models import louder, write_model, write_sdxl

from triptych.pipeline import Pipeline
from triptych.tokenizer import Tokenizer
from triptych_export import torch_road
from triptych_export.cli import main
from triptych_export.errors import ExportError
from triptych_export.picture import psnr
from triptych_export.rebuild import rebuild
from triptych_export.source import open_source
from triptych_export.stages import stages


@pytest.mark.parametrize("pipeline", ["StableDiffusionPipeline", "LatentConsistencyModelPipeline"])
def test_a_latent_consistency_model_draws_as_in_diffusers(tmp_path, pipeline):
    """Guidance goes to the UNet as an embedding: another scale gives another picture.

    The two pipelines read the scheduler's file otherwise: it clips by one of them alone.
    """
    model = write_model(tmp_path / "model", time_cond_proj_dim=32)
    index = json.loads((model / "model_index.json").read_text())
    index.update(_class_name=pipeline, scheduler=["diffusers", "LCMScheduler"])
    (model / "model_index.json").write_text(json.dumps(index))
    scheduler = model / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "clip_sample": True}))
    served = tmp_path / "served"
    assert main([str(model), "--output", str(served)]) == 0
    theirs = DiffusionPipeline.from_pretrained(model)
    assert type(theirs).__name__ == pipeline
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


@pytest.fixture
def tiny(tmp_path):
    """An AutoencoderTiny of random weights, whose pictures show their latents."""
    torch.manual_seed(3)
    widths = (16,) * 4
    network = AutoencoderTiny(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths, scaling_factor=0.8
    )
    network.decoder.layers[-1].weight.data *= 4
    network.save_pretrained(tmp_path / "tiny")
    return network


def test_a_tiny_decoder_draws_as_in_diffusers(tmp_path, tiny):
    """From noise as with it as the VAE, from a picture as by the VAE's encoder and its decoder."""
    model = louder(write_model(tmp_path / "model"))
    served = tmp_path / "served"
    arguments = ["--tiny-decoder", str(tmp_path / "tiny"), "--output", str(served)]
    assert main([str(model), *arguments]) == 0
    ours = Pipeline(served)
    asked = {"prompt": "red", "num_inference_steps": 4}
    size, seed = {"height": 128, "width": 72}, {"seed": 3}

    def by_diffusers(kind, **more):
        pipeline = kind.from_pretrained(model, **more.pop("parts", {}))
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(3)
        return pipeline(**asked, **more, generator=generator).images

    expected = by_diffusers(StableDiffusionPipeline, parts={"vae": tiny}, **size, output_type="np")[
        0
    ]
    drawn = ours.pixels(json.dumps({**asked, **size, **seed}))
    assert psnr(drawn, (expected * 255).round().astype(np.uint8)) >= 40

    colours = np.random.RandomState(0).randint(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(colours).resize((72, 128), Image.Resampling.BICUBIC)
    latents = by_diffusers(
        StableDiffusionImg2ImgPipeline, image=image, strength=0.5, output_type="latent"
    )
    with torch.no_grad():
        decoded = tiny.decode(latents / 0.8).sample
    expected = (decoded / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    image.save(file, "PNG")
    brought = {"image": base64.b64encode(file.getvalue()).decode(), "strength": 0.5}
    drawn = ours.pixels(json.dumps({**asked, **seed, **brought}))
    assert psnr(drawn, (expected * 255).round().astype(np.uint8)) >= 40
    with pytest.raises(ExportError, match="tiny decoder"):
        rebuild(served, tmp_path / "rebuilt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
        ({"latent_channels": 16}, "16 channels of latents and 8 pixels to one"),
        ({"num_decoder_blocks": [3, 1], "decoder_block_out_channels": [16, 16]}, "2 pixels to one"),
        ({"twice": True}, "twice is no key"),
    ],
)
def test_what_is_no_tiny_decoder_of_the_model_is_refused(
    model, tiny, tmp_path, capsys, change, said
):
    path = tmp_path / "tiny" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    arguments = ["--tiny-decoder", str(path.parent), "--output", str(tmp_path / "served")]
    assert main([str(model), *arguments]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "served").exists()


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


def test_a_prompt_without_the_end_token_is_pooled_as_transformers_pools_it(tmp_path):
    source = open_source(write_sdxl(tmp_path / "model"))
    module = torch_road.load(stages(source)["text_encoder_2"], source)
    ids = torch.full((1, source.text_length), 3, dtype=torch.int32)
    with torch.no_grad():
        expected = module.model(input_ids=ids).text_embeds
        _, pooled = module(ids, torch.ones(ids.shape), torch.zeros(1, 1, dtype=torch.int32))
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(pooled, expected)
