"""SDXL in a single file: the same networks as from its folder, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from folders import contents
from random_models import louder, write_sdxl
from safetensors.torch import save_file
from single_file_layout import state_dict
from test_single_file import export

from triptych.tokenizer import Tokenizer
from triptych_export.single_file_road import write_usual_configs
from triptych_export.source import SecondEncoder, open_source


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A model's folder, and what was served of it."""
    folder = tmp_path_factory.mktemp("pair")
    model = louder(write_sdxl(folder / "model", projection_dim=64))
    assert export(model, "--output", folder / "served") == 0
    return model, folder / "served"


def by_name(served) -> dict:
    """What the files hold, but for the one in which transformers notes where it read from."""
    found = {path.relative_to(served): content for path, content in contents(served).items()}
    del found[Path("tokenizer/1/tokenizer_config.json")]
    return found


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_becomes_what_its_folder_becomes(pair, tmp_path, suffix):
    model, served = pair
    path, state = tmp_path / f"model{suffix}", state_dict(model)
    if suffix == ".ckpt":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    assert export(path, "--config", model, "--output", tmp_path / "served") == 0
    assert by_name(tmp_path / "served") == by_name(served)


def test_a_single_file_without_a_vae_takes_another(pair, tmp_path):
    model, served = pair
    state = state_dict(model)
    state = {name: v for name, v in state.items() if not name.startswith("first_stage_model.")}
    save_file(state, tmp_path / "m.safetensors")
    arguments = ("--config", model, "--vae", model, "--output", tmp_path / "served")
    assert export(tmp_path / "m.safetensors", *arguments) == 0
    assert by_name(tmp_path / "served") == by_name(served)


@pytest.mark.parametrize("name", ["1.model.text_projection", "0.transformer.text_model.final"])
def test_a_weight_that_the_file_lacks_is_not_made_up(pair, tmp_path, capsys, name):
    path, without = tmp_path / "m.safetensors", f"conditioner.embedders.{name}"
    state = state_dict(pair[0])
    save_file({k: v for k, v in state.items() if not k.startswith(without)}, path)
    assert export(path, "--config", pair[0], "--output", tmp_path / "served") == 1
    assert "weights missing" in capsys.readouterr().err


def test_other_sizes_need_configurations(pair, tmp_path, capsys):
    save_file(state_dict(pair[0]), tmp_path / "m.safetensors")
    assert export(tmp_path / "m.safetensors", "--output", tmp_path / "served") == 1
    assert "96 wide, SDXL's are 2048" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("width", "channels", "told", "expected"),
    [
        (768, 4, [], ("epsilon", None, 64)),
        (1024, 4, [], ("v_prediction", None, 96)),
        (1024, 4, ["v_pred"], ("v_prediction", None, 96)),
        (1024, 4, ["global_step=875000"], ("epsilon", None, 64)),
        (1024, 9, [], ("epsilon", None, 64)),
        (2048, 4, [], ("epsilon", None, 128)),
        (2048, 4, ["v_pred"], ("v_prediction", None, 128)),
        (2048, 4, ["v_pred", "ztsnr"], ("v_prediction", True, 128)),
    ],
)
def test_what_a_file_tells_of_its_training(tmp_path, capsys, width, channels, told, expected):
    write_usual_configs(tmp_path, width, channels, set(told), None)
    noise = json.loads((tmp_path / "scheduler/scheduler_config.json").read_text())
    side = json.loads((tmp_path / "unet/config.json").read_text())["sample_size"]
    found = (noise["prediction_type"], noise.get("rescale_betas_zero_snr"), side)
    assert found == expected
    assumed = (width, channels, told) == (1024, 4, [])
    assert ("--prediction-type epsilon" in capsys.readouterr().out) == assumed


def test_the_configurations_are_those_of_sdxl(tmp_path):
    write_usual_configs(tmp_path, 2048, 4, set(), None)
    source = open_source(tmp_path)
    assert source.sample_size == (128, 128)
    assert source.hidden_size == 2048
    assert source.scaling_factor == 0.13025
    assert source.guidance_scale == 5.0
    assert source.text_encoder_layers == 12
    assert source.scheduler_class == "EulerDiscreteScheduler"
    assert source.second_encoder == SecondEncoder(1280, 1280, True)
    tokenizers = [Tokenizer(tmp_path / part) for part in ("tokenizer", "tokenizer_2")]
    assert [tokenizer.pad_token_id for tokenizer in tokenizers] == [49407, 0]
