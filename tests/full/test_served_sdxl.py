"""A model of SDXL's layout beside one of Stable Diffusion 1.x, both served by Triton."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from random_models import louder, write_sdxl
from test_served_models import SERVER, pixels

from tests import lora_files
from triptych.cli import main as triptych
from triptych.client import Client, Refused
from triptych.pipeline import Pipeline
from triptych.server.running import RunningServer
from triptych_export.cli import main

SMALL = {"num_inference_steps": 3, "height": 96, "width": 64, "seed": 3}


def picture() -> str:
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (96, 64, 3), np.uint8)).save(
        file, "PNG"
    )
    return base64.b64encode(file.getvalue()).decode()


REQUESTS = [
    {"prompt": "red", **SMALL},
    {"prompt": "red", "negative_prompt": "blue", **SMALL},
    {
        "prompt": "red",
        "prompt_2": "blue bed",
        "negative_prompt_2": "bed",
        "original_size": [400, 300],
        "crops_coords_top_left": [64, 0],
        "target_size": [1024, 1024],
        "clip_skip": 1,
        **SMALL,
    },
    {"prompt": "a (red:1.4) bed " * 40, "prompt_syntax": "webui", **SMALL},
    {"prompt": "red", "guidance_scale": 0, "timestep_spacing": "trailing", **SMALL},
    {"prompt": "red", "cache_interval": 2, **SMALL},
    {"prompt": "red", "image": picture(), "strength": 0.7, **SMALL},
    {"prompt": "red", "loras": [{"name": "ink", "scale": 0.7}], **SMALL},
    {"prompt": "a bed <lora:ink:-0.5>", "prompt_syntax": "webui", "clip_skip": 1, **SMALL},
]
LORA = {
    "unet": {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (64, 96)},
    "text": {"text_model.encoder.layers.0.self_attn.q_proj": (32, 32)},
    "text_2": {"text_model.encoder.layers.1.mlp.fc1": (128, 64)},
}


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    source, output = louder(write_sdxl(folder / "source")), folder / "served"
    assert main([str(source), "--output", str(output), "--name", "xl"]) == 0
    assert main([str(model), "--output", str(output)]) == 0
    lora_files.write(output / "xl.unet" / "loras", "ink", lora_files.changes(1, **LORA))
    lora_files.write(output / "unet" / "loras", "ink", lora_files.changes(1, **LORA))
    return output


def test_served_pictures_are_those_of_one_process_to_the_last_bit(served, tmp_path, capsys):
    expected = Pipeline(served, model="xl").draw(*map(json.dumps, REQUESTS))
    assert len(set(map(pixels, expected))) == len(REQUESTS)
    with RunningServer(served, tmp_path / "log", python=SERVER) as server:
        with Client(server.grpc) as client:
            assert client.models() == ["sd_ensemble", "xl"]
            for asked, file in zip(REQUESTS, expected):
                more = {name: value for name, value in asked.items() if name != "prompt"}
                drawn = client.generate(asked["prompt"], 120, "xl", **more)
                assert pixels(drawn.file) == pixels(file), asked
            for name, value in (("prompt_2", "x"), ("target_size", [64, 64])):
                with pytest.raises(Refused, match=f"^{name}: got .*one text encoder"):
                    client.generate("red", 60, **{**SMALL, name: value})
            with pytest.raises(Refused, match=r"^loras: got 'ink'; .* but it is for SDXL \("):
                client.generate("red", 60, **SMALL, loras=[{"name": "ink", "scale": 1}])
            with pytest.raises(Refused, match=r"^original_size: got a list; allowed: a list"):
                client.generate("red", 60, "xl", **SMALL, original_size=[1])
        arguments = ["--url", server.grpc, "--model", "xl", "-o", str(tmp_path / "x.png")]
        size = ["--steps", "2", "--height", "64", "--width", "64", "--target-size", "512", "384"]
        assert triptych(["stages", "red", *arguments, *size]) == 0
        assert "xl gives the very same file" in capsys.readouterr().out
