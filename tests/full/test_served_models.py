"""A model exported by name beside another, and both served: a single file and its folder."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from random_models import write_model
from safetensors.torch import save_file
from single_file_layout import state_dict

from triptych.client import Client
from triptych.errors import InvalidRequest
from triptych.lora.folder import LoraFolder
from triptych.names import Names
from triptych.picture.metadata import read_settings
from triptych.pipeline import Pipeline
from triptych.server.running import RunningServer
from triptych_export.cli import main
from triptych_export.rebuild import rebuild

CHECKOUT = Path(__file__).resolve().parents[2]
SERVER = str(CHECKOUT / ".venv" / "bin" / "python")
ASKED = {"seed": 3, "num_inference_steps": 4, "height": 128, "width": 72}


def pixels(file: bytes) -> bytes:
    """What is compared: the server's environment has another writer of PNG than the tests'."""
    return Image.open(io.BytesIO(file)).tobytes()


def contents(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Every file of these models in a repository."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in names
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def test_a_single_file_served_beside_its_folder_draws_the_same_to_the_last_bit(tmp_path):
    model = write_model(tmp_path / "model")
    file, output = tmp_path / "model.safetensors", tmp_path / "served"
    save_file(state_dict(model), file)
    assert main([str(model), "--output", str(output)]) == 0
    before = contents(output, Names().all)
    arguments = [str(file), "--config", str(model), "--output", str(output)]
    assert main([*arguments, "--name", "file"]) == 0
    assert contents(output, Names().all) == before
    server = RunningServer(output, tmp_path / "log", python=SERVER)
    with server, Client(server.grpc) as client:
        assert client.models() == ["sd_ensemble", "file"]
        folder, single = (
            client.generate("red", 120, model, negative_prompt="blue", **ASKED).file
            for model in client.models()
        )
        others = client.generate("blue", 120, "file", **ASKED).file
    assert pixels(single) == pixels(folder) != pixels(others)
    assert read_settings(single).model == "file"
    asked = '{"prompt": "red", "negative_prompt": "blue", "seed": 3, "num_inference_steps": 4, '
    asked += '"height": 128, "width": 72}'
    (alone,) = Pipeline(output, model="file").draw(asked)
    assert (pixels(alone), read_settings(alone)) == (pixels(single), read_settings(single))


def test_a_model_that_takes_a_mask_and_the_guidance_scale_is_served(tmp_path):
    """What its UNet is conditioned on has sizes of its own, which Triton checks in every call."""
    model, output = tmp_path / "model", tmp_path / "served"
    write_model(model, in_channels=9, time_cond_proj_dim=32)
    assert main([str(model), "--output", str(output)]) == 0
    picture = Image.effect_noise((64, 96), 90).convert("RGB")
    mask = Image.new("L", (64, 96))
    mask.paste(255, (16, 16, 48, 64))
    files = {"image": io.BytesIO(), "mask_image": io.BytesIO()}
    picture.save(files["image"], "PNG")
    mask.save(files["mask_image"], "PNG")
    brought = {name: base64.b64encode(file.getvalue()).decode() for name, file in files.items()}
    asked = {**brought, "seed": 3, "num_inference_steps": 4, "scheduler": "ddim"}
    server = RunningServer(output, tmp_path / "log", python=SERVER)
    with server, Client(server.grpc) as client:
        file = client.generate("red", 120, **asked).file
    (alone,) = Pipeline(output).draw(json.dumps({"prompt": "red", **asked}))
    assert (pixels(alone), read_settings(alone)) == (pixels(file), read_settings(file))


def test_a_named_model_is_exported_anew_and_goes_back_to_a_folder(tmp_path):
    output, unet = tmp_path / "served", "ink.unet/1/model.onnx"
    assert main([str(write_model(tmp_path / "1")), "--output", str(output), "--name", "ink"]) == 0
    before = (output / unet).read_bytes()
    second = write_model(tmp_path / "2", widths=(32, 32, 64))
    assert main([str(second), "--output", str(output), "--name", "ink"]) == 0
    assert (output / unet).read_bytes() != before
    assert not (output / "unet").exists()
    rebuild(output, tmp_path / "rebuilt", "ink")
    config = json.loads((tmp_path / "rebuilt" / "unet" / "config.json").read_text())
    assert config["block_out_channels"] == [32, 32, 64]


def test_a_model_exported_over_the_demo_does_not_offer_its_lora_and_refuses_it(tmp_path):
    served = Path(shutil.copytree(CHECKOUT / "model_repository", tmp_path / "served"))
    assert main([str(write_model(tmp_path / "model")), "--output", str(served)]) == 0
    assert LoraFolder.of(served / "unet").offered() == []
    pipeline = Pipeline(served)
    asked = {"prompt": "red", **ASKED}
    pipeline.draw(json.dumps(asked))
    wanted = r"a LoRA for a model whose text has 64 channels, but it is for .* 192 channels"
    with pytest.raises(InvalidRequest, match=wanted):
        pipeline.draw(json.dumps({**asked, "loras": [{"name": "outlines"}]}))
