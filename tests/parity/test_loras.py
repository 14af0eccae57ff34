"""Pictures with LoRAs against those of diffusers, which loads the same files by PEFT."""

from __future__ import annotations

import os

import diffusers
import numpy as np
import pytest
import torch

from tests import lora_files
from tests.server.repositories import MODELS, linked, own
from triptych.pipeline import Pipeline
from triptych_export.picture import psnr
from triptych_export.rebuild import pipeline

SETTINGS = {
    "prompt": "a red circle left of a green star",
    "negative_prompt": "blue",
    "num_inference_steps": 7,
    "guidance_scale": 5.0,
    "height": 128,
    "width": 128,
    "seed": 3,
}
LEAST = 40.0
CONVOLUTIONS = {**lora_files.ATTENTION, **lora_files.CONVOLUTIONS}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = linked(tmp_path_factory.mktemp("loras") / "models", MODELS)
    (own(folder, "unet") / "loras").mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def served(repository):
    return Pipeline(repository)


@pytest.fixture(scope="module")
def reference():
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(os.cpu_count())
    made = pipeline(MODELS)
    made.set_progress_bar_config(disable=True)
    return made


def drawn(reference, *loras) -> np.ndarray:
    """diffusers' picture with LoRAs of (file, scale)."""
    try:
        for file, _ in loras:
            reference.load_lora_weights(str(file), adapter_name=file.stem)
        if loras:
            scales = [scale for _, scale in loras]
            reference.set_adapters([file.stem for file, _ in loras], scales)
        asked = {name: value for name, value in SETTINGS.items() if name != "seed"}
        generator = torch.Generator("cpu").manual_seed(SETTINGS["seed"])
        return np.asarray(reference(generator=generator, **asked).images[0])
    finally:
        reference.unload_lora_weights()


def ours(served, *loras) -> np.ndarray:
    import json

    asked = [{"name": file.stem, "scale": scale} for file, scale in loras]
    return served.pixels(json.dumps({**SETTINGS, "loras": asked}))


@pytest.mark.parametrize(
    ("layout", "alpha", "unet"),
    [
        ("kohya", 2.0, lora_files.ATTENTION),
        ("kohya", None, CONVOLUTIONS),
        ("diffusers", None, lora_files.ATTENTION),
        ("peft", None, CONVOLUTIONS),
    ],
)
def test_every_layout_gives_diffusers_picture(repository, served, reference, layout, alpha, unet):
    name = f"{layout}-{len(unet)}"
    folder = repository / "unet" / "loras"
    file = lora_files.write(folder, name, lora_files.changes(1, unet=unet), layout, alpha)
    expected = drawn(reference, (file, 0.8))
    near = psnr(ours(served, (file, 0.8)), expected)
    print(f"{name}: {near:.1f} dB, without {psnr(ours(served), expected):.1f}")
    assert near >= LEAST
    assert psnr(ours(served), expected) < LEAST - 10


def test_two_at_once_and_one_without_text_encoder(repository, served, reference):
    folder = repository / "unet" / "loras"
    first = lora_files.write(folder, "first", lora_files.changes(2), "peft")
    second = lora_files.write(
        folder, "second", lora_files.changes(3, rank=8, text={}), "kohya", 4.0
    )
    scales = (first, 0.7), (second, -0.5)
    expected = drawn(reference, *scales)
    assert psnr(ours(served, *scales), expected) >= LEAST
    for alone in scales:
        assert psnr(ours(served, alone), expected) < LEAST - 5


def test_pefts_configuration_in_the_file_says_the_scale(repository, served, reference):
    """As save_lora_weights writes it for a LoRA whose alpha is not its rank."""
    from peft import LoraConfig

    config = LoraConfig(r=4, lora_alpha=10, target_modules=["to_q", "to_k"])
    reference.unet.add_adapter(config, "made")
    torch.manual_seed(0)
    for name, weight in reference.unet.named_parameters():
        if "lora_B" in name:
            weight.data = 0.2 * torch.randn_like(weight)
    from peft import get_peft_model_state_dict

    folder = repository / "unet" / "loras"
    reference.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(reference.unet, adapter_name="made"),
        weight_name="made.safetensors",
        unet_lora_adapter_metadata=reference.unet.peft_config["made"].to_dict(),
    )
    reference.unet.delete_adapters("made")
    file = folder / "made.safetensors"
    expected = drawn(reference, (file, 1.0))
    assert psnr(ours(served, (file, 1.0)), expected) >= LEAST
    assert psnr(ours(served), expected) < LEAST - 5
