"""Models in single files: the same picture as from their folders, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from random_models import write_model
from safetensors.torch import load_file, save_file
from single_file_layout import state_dict
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks import sd15
from tests import lora_files
from triptych.pipeline import Pipeline
from triptych.tokenizer import Tokenizer
from triptych_export.cli import CHECKOUT, main
from triptych_export.picture import psnr
from triptych_export.single_file_configs import write_configs

REQUEST = {"prompt": "red", "negative_prompt": "blue", "seed": 3, "num_inference_steps": 4}
REQUEST.update(height=128, width=72)


def export(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def picture(served: Path, **changes) -> bytes:
    return Pipeline(served).pixels(json.dumps({**REQUEST, **changes})).tobytes()


@pytest.fixture(scope="module", params=[False, True], ids=["1.x", "2.x"])
def pair(request, tmp_path_factory) -> tuple[Path, Path]:
    """A model's folder, and what was served of it."""
    folder = tmp_path_factory.mktemp("pair")
    model = write_model(folder / "model", second=request.param)
    assert export(model, "--output", folder / "served") == 0
    return model, folder / "served"


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_draws_the_picture_of_its_folder(pair, tmp_path, suffix):
    model, served = pair
    state = state_dict(model)
    path = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 7, "callbacks": {Stranger: 1}}, path)
    else:
        save_file(state, path)
    assert export(path, "--config", model, "--output", tmp_path / "served") == 0
    assert picture(tmp_path / "served") == picture(served)


def test_a_file_in_half_precision_is_exported_without_warnings_of_libraries(pair, tmp_path):
    state = {name: value.half() for name, value in state_dict(pair[0]).items()}
    save_file(state, tmp_path / "model.safetensors")
    command = [sys.executable, CHECKOUT / "scripts" / "export_stages.py", "model.safetensors"]
    command += ["--config", pair[0], "--output", "served"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "text_encoder: error" in done.stderr
    assert "torchvision" not in done.stderr and "float32" not in done.stderr


class Stranger:
    """A class that no reader of a .ckpt should import."""


class Harm:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["HARM"])),)


def test_a_ckpt_runs_nothing_that_is_in_it(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": state_dict(pair[0]), "x": Harm()}, path)
    assert export(path, "--config", pair[0], "--output", tmp_path / "served") == 1
    assert "asks for posix.mkdir, which no weights need" in capsys.readouterr().err
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("prefix", ["model.diffusion_model.out", "first_stage_model.decoder.mid"])
def test_a_weight_that_the_file_lacks_is_not_made_up(pair, tmp_path, capsys, prefix):
    state = state_dict(pair[0])
    save_file(
        {k: v for k, v in state.items() if not k.startswith(prefix)}, tmp_path / "m.safetensors"
    )
    output = tmp_path / "served"
    assert export(tmp_path / "m.safetensors", "--config", pair[0], "--output", output) == 1
    assert "weights missing" in capsys.readouterr().err
    assert not output.exists()


def test_sizes_of_no_stable_diffusion_need_configurations(pair, tmp_path, capsys):
    save_file(state_dict(pair[0]), tmp_path / "m.safetensors")
    assert export(tmp_path / "m.safetensors", "--output", tmp_path / "served") == 1
    assert "64 wide, Stable Diffusion's are 768 or 1024" in capsys.readouterr().err


@pytest.mark.parametrize("width", [768, 1024, 2048])
def test_the_configurations_are_those_of_stable_diffusion(tmp_path, width):
    """The networks that they describe, of the sizes in the literature; 1.5's as in benchmarks."""
    write_configs(tmp_path, width, 4, 512, {"prediction_type": "epsilon"})
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextModel.config_class.from_pretrained(tmp_path / "text_encoder"))
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(tmp_path, subfolder="unet")
        )
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(tmp_path, subfolder="vae"))
        networks = [text, unet, vae]
        if width == 2048:
            second = CLIPTextModelWithProjection.config_class.from_pretrained(
                tmp_path / "text_encoder_2"
            )
            networks.append(CLIPTextModelWithProjection(second))
        if width == 768:
            for name, theirs in sd15.networks().items():
                ours = {"text_encoder": text, "unet": unet, "vae": vae}[name]
                assert shapes(ours) == shapes(theirs)
    millions = [round(sum(p.numel() for p in one.parameters()) / 1e6, 1) for one in networks]
    known = {768: [123.1, 859.5, 83.7], 1024: [340.4, 865.9, 83.7]}
    assert millions == {**known, 2048: [123.1, 2567.5, 83.7, 694.7]}[width]


def shapes(network) -> dict:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_clips_tokens_have_their_numbers(tmp_path):
    write_configs(tmp_path, 768, 4, 512, {})
    ids, _ = Tokenizer(tmp_path / "tokenizer").encode(["a photo of a cat", "naïve 東京!"])
    assert ids[0][:8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert theirs("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_another_vae(pair, tmp_path, capsys):
    """From a folder and from a single file it gives one picture, and another than the model's."""
    model, served = pair
    torch.manual_seed(5)
    config = AutoencoderKL.load_config(model, subfolder="vae")
    AutoencoderKL.from_config(config).save_pretrained(tmp_path / "other")
    state = {
        name.removeprefix("first_stage_model."): value
        for name, value in state_dict(model, vae=tmp_path / "other").items()
        if name.startswith("first_stage_model.")
    }
    save_file(state, tmp_path / "other.vae.safetensors")
    drawn = []
    for number, vae in enumerate(("other", "other.vae.safetensors")):
        output = tmp_path / f"served{number}"
        assert export(model, "--vae", tmp_path / vae, "--output", output) == 0
        drawn.append(picture(output))
    assert drawn[0] == drawn[1] != picture(served)
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert export(model, "--vae", tmp_path / "lora.safetensors", "--output", tmp_path / "x") == 1
    assert "holds no VAE" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["safetensors", "pt", "bin"])
def test_embeddings_are_words_of_prompts(pair, tmp_path, kind):
    """Two vectors, as each of the three kinds of files has them, draw as in diffusers."""
    model, _ = pair
    torch.manual_seed(6)
    vectors, path = torch.randn(2, 64), tmp_path / f"my-style.{kind}"
    if kind == "safetensors":
        save_file({"emb_params": vectors}, path)
    elif kind == "pt":
        torch.save(
            {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "x"}, path
        )
    else:
        torch.save({"<other>": vectors}, path)
    output = tmp_path / "served"
    assert export(model, "--embedding", path, "--output", output) == 0
    theirs = StableDiffusionPipeline.from_pretrained(model)
    theirs.load_textual_inversion(str(path), token="my-style")
    ids = theirs.tokenizer(theirs.maybe_convert_prompt("red my-style", theirs.tokenizer)).input_ids
    ours, _ = Tokenizer(output / "tokenizer" / "1").encode(["red my-style"])
    assert ours[0][: len(ids)].tolist() == ids
    assert picture(output, prompt="red my-style") != picture(output, prompt="red")


def test_loras_are_added_to_the_weights(pair, tmp_path, capsys):
    """As a server adds them to the same model by request, and another picture than without."""
    model, served = pair
    width = 64
    unet = {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (32, width)}
    config = json.loads((model / "unet" / "config.json").read_text())
    unet = {next(iter(unet)): (config["block_out_channels"][0], config["cross_attention_dim"])}
    text = {"text_model.encoder.layers.1.self_attn.q_proj": (width, width)}
    files = [
        lora_files.write(tmp_path, name, lora_files.changes(seed, unet=unet, text=text), "kohya", 2)
        for seed, name in enumerate(("ink", "chalk"))
    ]
    output, asked = tmp_path / "served", [f"{files[0]}:0.75", f"{files[1]}:-0.5"]
    assert export(model, "--lora", *asked, "--output", output) == 0
    by_request = Path(shutil.copytree(served, tmp_path / "by-request"))
    loras = by_request / "unet" / "loras"
    loras.mkdir()
    for file in files:
        shutil.copy(file, loras)
    names = [{"name": "ink", "scale": 0.75}, {"name": "chalk", "scale": -0.5}]
    pictures = [
        np.frombuffer(drawn, np.uint8)
        for drawn in (picture(output), picture(by_request, loras=names), picture(served))
    ]
    assert psnr(pictures[0], pictures[1]) >= 50 > psnr(pictures[0], pictures[2])
    save_file({"emb_params": torch.zeros(1, 64)}, files[0])
    assert export(model, "--lora", files[0], "--output", tmp_path / "x") == 1
    assert "textual inversion" in capsys.readouterr().err


def test_folders_of_pickles_variants_and_shards(pair, tmp_path):
    model, served = pair
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    unet = load_file(path)
    save_file(unet, path.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    path.unlink()
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    text = CLIPTextModel.from_pretrained(model, subfolder="text_encoder")
    (folder / "text_encoder" / "model.safetensors").unlink()
    text.save_pretrained(folder / "text_encoder", max_shard_size="100KB")
    assert len(list((folder / "text_encoder").glob("model-*"))) > 1
    assert export(folder, "--output", tmp_path / "served") == 0
    assert picture(tmp_path / "served") == picture(served)


def test_what_the_files_do_not_say_is_said_by_flags(pair, tmp_path):
    arguments = ("--prediction-type", "v_prediction", "--rescale-betas-zero-snr")
    index = json.loads((pair[0] / "model_index.json").read_text())
    model = Path(shutil.copytree(pair[0], tmp_path / "model"))
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    (model / "model_index.json").write_text(json.dumps(index))
    assert export(model, *arguments, "--output", tmp_path / "served") == 0
    config = json.loads((tmp_path / "served/unet_loop/1/scheduler_config.json").read_text())
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == ("v_prediction", True)
