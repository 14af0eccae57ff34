"""Pictures of SDXL's kind against diffusers' pipelines, with the same random weights.

The weights go through the export and the whole of `triptych.pipeline`.
"""

from __future__ import annotations

import inspect
import io
import itertools
import json
import sys
import types
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders import lora_conversion_utils
from diffusers_reference import made
from PIL import Image
from test_from_pictures import colours, mask_of, text

sys.path.insert(0, str(Path(__file__).parents[1] / "full"))

from random_models import louder, write_sdxl

from tests import lora_files
from triptych.lora import names
from triptych.pipeline import Pipeline
from triptych_export.cli import main
from triptych_export.picture import psnr

LEAST = 40.0
SIZES = ((64, 96), (96, 64))
GUIDANCE = (1.0, 5.0)
STEPS = 5
SCALE = 0.8
"""Of a LoRA."""
WORDS = {"prompt": "red blue", "negative_prompt": "bed"}
SCHEDULERS = (
    *("ddim", "pndm", "euler", "euler_ancestral", "heun"),
    *("dpmpp_2m", "dpmpp_2m_sde", "unipc", "dpmpp_2m_karras", "euler_beta"),
)


class Both:
    """A model as diffusers runs it and as we do."""

    def __init__(self, folder, **more):
        source = louder(write_sdxl(folder / "source", **more))
        assert main([str(source), "--output", str(folder / "served")]) == 0
        self.ours, self.loras = Pipeline(folder / "served"), folder / "served" / "unet" / "loras"
        whole = StableDiffusionXLPipeline.from_pretrained(source, add_watermarker=False)
        self.parts, self.config = whole.components, whole.scheduler.config
        self.parts["force_zeros_for_empty_prompt"] = whole.config.force_zeros_for_empty_prompt

    def theirs(self, scheduler="euler", seed=1, timestep_spacing=None, lora=None, **values):
        kind = StableDiffusionXLPipeline
        if "image" in values:
            masked = "mask_image" in values
            kind = StableDiffusionXLInpaintPipeline if masked else StableDiffusionXLImg2ImgPipeline
        takes = inspect.signature(kind.__init__).parameters
        parts = {name: part for name, part in self.parts.items() if name in takes}
        spacing = {"timestep_spacing": timestep_spacing} if timestep_spacing else {}
        parts["scheduler"] = made(scheduler, {**self.config, **spacing})
        pipeline = kind(**parts, add_watermarker=False)
        pipeline.set_progress_bar_config(disable=True)
        if values.get("mask_image"):
            values.setdefault("height", values["image"].height)
            values.setdefault("width", values["image"].width)
        values.setdefault("num_inference_steps", STEPS)
        if lora is not None:
            pipeline.load_lora_weights(str(lora), adapter_name=lora.stem)
            pipeline.set_adapters([lora.stem], [SCALE])
        try:
            with torch.no_grad():
                done = pipeline(generator=torch.Generator("cpu").manual_seed(seed), **values)
        finally:
            pipeline.unload_lora_weights()
        return np.asarray(done.images[0])

    def mine(self, scheduler="euler", seed=1, lora=None, **values):
        if lora is not None:
            values["loras"] = [{"name": lora.stem, "scale": SCALE}]
        values = {key: text(v) if isinstance(v, Image.Image) else v for key, v in values.items()}
        request = {"scheduler": scheduler, "seed": seed, "num_inference_steps": STEPS, **values}
        (file,) = self.ours.draw(json.dumps(request))
        return np.asarray(Image.open(io.BytesIO(file)))

    def decibels(self, scheduler="euler", **values):
        return psnr(self.mine(scheduler, **values), self.theirs(scheduler, **values))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    diffusers.logging.set_verbosity_error()
    return Both(tmp_path_factory.mktemp("zeros"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model whose empty negative prompt is encoded, and whose end token SDXL's own rule finds."""
    diffusers.logging.set_verbosity_error()
    return Both(tmp_path_factory.mktemp("words"), legacy=True, force_zeros=False)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_sizes_and_guidance(model, scheduler):
    for (height, width), guidance in itertools.product(SIZES, GUIDANCE):
        values = {**WORDS, "height": height, "width": width, "guidance_scale": guidance}
        assert model.decibels(scheduler, **values) >= LEAST, values


def test_without_a_negative_prompt_zeros_or_an_empty_text_stand_for_it(model, other):
    size = {"height": 64, "width": 96, "guidance_scale": 5.0}
    assert model.decibels(prompt="red", **size) >= LEAST
    assert other.decibels(prompt="red", **size) >= LEAST
    assert other.decibels(**WORDS, **size, prompt_2="blue bed") >= LEAST
    expected = model.theirs(prompt="red", negative_prompt="", **size)
    assert psnr(model.mine(prompt="red", **size), expected) < LEAST - 5


SECOND = {"prompt_2": "blue bed", "negative_prompt_2": "red red"}
TOLD = [
    SECOND,
    {"prompt_2": "blue bed"},
    {"negative_prompt_2": "red red"},
    {"prompt_2": "", "negative_prompt_2": ""},
    {"original_size": (512, 384)},
    {"crops_coords_top_left": (128, 0)},
    {"target_size": (1024, 512)},
    {"clip_skip": 1},
    {"clip_skip": 2, **SECOND},
    {"guidance_rescale": 0.7},
]


@pytest.mark.parametrize("told", TOLD, ids=str)
def test_what_the_model_is_told_beside_a_prompt(model, told):
    values = {**WORDS, "height": 64, "width": 96, "guidance_scale": 5.0}
    expected = model.theirs(**values, **told)
    assert psnr(model.mine(**values, **told), expected) >= LEAST
    if any(told.values()):
        assert psnr(model.mine(**values), expected) < LEAST - 5


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("scheduler", ["euler_ancestral", "euler", "lcm"])
def test_few_steps_without_guidance(model, scheduler, steps):
    """As SDXL Turbo, Lightning and LCM are drawn."""
    for guidance in (0.0, 1.0):
        values = {"guidance_scale": guidance, "num_inference_steps": steps}
        if scheduler != "lcm":  # whose timesteps are fixed
            values["timestep_spacing"] = "trailing"
        decibels = model.decibels(scheduler, prompt="red", height=64, width=64, **values)
        assert decibels >= LEAST, guidance


def test_another_seed_is_another_picture(model):
    """So that a high figure above says something."""
    values = {**WORDS, "height": 64, "width": 64}
    assert psnr(model.mine(seed=2, **values), model.theirs(seed=1, **values)) < LEAST - 5


def test_a_second_pass(model):
    """The UNet is told the second pass's own size in it."""
    values = {**WORDS, "guidance_scale": 5.0}
    first = {"height": 64, "width": 96, "output_type": "latent"}
    latents = torch.from_numpy(model.theirs(**values, **first))[None]
    scaled = torch.nn.functional.interpolate(latents, (16, 24), mode="bilinear")
    second = {"strength": 0.6, "num_inference_steps": STEPS}
    expected = model.theirs(**values, **second, image=scaled)
    assert expected.shape == (128, 192, 3)
    second = {**second, "height": 128, "width": 192}
    mine = model.mine(**values, height=64, width=96, second_pass=second)
    assert psnr(mine, expected) >= LEAST


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m"])
def test_from_pictures(model, scheduler, mask):
    for strength, (height, width) in zip((0.3, 0.7, 1.0), SIZES * 2):
        values = {**WORDS, "strength": strength, "guidance_scale": 5.0}
        values["image"] = colours(width, height)
        if mask:
            values["mask_image"] = mask_of(width, height)
        assert model.decibels(scheduler, **values) >= LEAST, values


LAYERS = {
    "unet": (
        "down_blocks.1.attentions.0.proj_in",
        *(
            f"{block}.transformer_blocks.{number}.{layer}"
            for block in ("down_blocks.1.attentions.0", "up_blocks.0.attentions.1")
            for number in (0, 1)
            for layer in ("attn1.to_q", "attn1.to_out.0", "attn2.to_k", "attn2.to_v", "ff.net.2")
        ),
    ),
    "text_encoder": (
        "text_model.encoder.layers.0.self_attn.q_proj",
        "text_model.encoder.layers.1.self_attn.out_proj",
    ),
    "text_encoder_2": (
        "text_model.encoder.layers.1.self_attn.v_proj",
        "text_model.encoder.layers.1.self_attn.out_proj",
        "text_model.encoder.layers.2.mlp.fc1",
    ),
}
RESNETS = ("down_blocks.0.resnets.0.conv1", "mid_block.resnets.1.conv2", "conv_in")


def shape_of(network, layer: str) -> tuple[int, ...]:
    weights = dict(network.named_parameters())
    # transformers has given some text encoders' layers without their text_model.
    name = next(
        name for name in (layer, layer.removeprefix("text_model.")) if f"{name}.weight" in weights
    )
    return tuple(weights[f"{name}.weight"].shape)


@pytest.mark.parametrize(
    ("layout", "alpha", "more"),
    [("kohya", 2.0, RESNETS), ("diffusers", None, ()), ("peft", None, RESNETS)],
)
def test_loras(model, layout, alpha, more):
    """Of the UNet and of both text encoders."""
    shapes = {
        network: {
            layer: shape_of(model.parts[network], layer)
            for layer in (*layers, *(more if network == "unet" else ()))
        }
        for network, layers in LAYERS.items()
    }
    unet, text, text_2 = shapes.values()
    made = lora_files.changes(1, unet=unet, text=text, text_2=text_2, size=1.0)
    file = lora_files.write(model.loras, layout, made, layout, alpha)
    values = {**WORDS, "height": 64, "width": 96, "guidance_scale": 5.0}
    expected = model.theirs(**values, lora=file)
    assert psnr(model.mine(**values, lora=file), expected) >= LEAST
    assert psnr(model.mine(**values), expected) < LEAST - 5
    for left_out in LAYERS:
        others = {key: one for key, one in made.items() if key[0] != left_out}
        part = lora_files.write(model.loras, f"{layout}-part", others, layout, alpha)
        assert psnr(model.mine(**values, lora=part), expected) < LEAST, left_out


def test_names_of_single_files_are_those_that_diffusers_reads():
    """In the files of kohya's scripts, for each kind of layer of the full-size UNet."""
    inner = ("transformer_blocks_1_attn2_to_v", "transformer_blocks_0_ff_net_0_proj", "proj_out")
    resnet = ("in_layers_2", "out_layers_3", "emb_layers_1", "skip_connection")
    layers = [f"middle_block_1_{one}" for one in inner]
    layers += [f"middle_block_{n}_{one}" for n in (0, 2) for one in resnet[:3]]
    layers += [f"input_blocks_{n}_1_{one}" for n in (4, 5, 7, 8) for one in inner]
    layers += [f"input_blocks_{n}_0_{one}" for n in (1, 2, 4, 5, 7, 8) for one in resnet]
    layers += [f"output_blocks_{n}_1_{one}" for n in range(6) for one in inner]
    layers += [f"output_blocks_{n}_0_{one}" for n in range(9) for one in resnet]
    layers += ["input_blocks_3_0_op", "input_blocks_6_0_op"]
    layers += ["output_blocks_2_2_conv", "output_blocks_5_2_conv"]
    files = {
        f"lora_unet_{layer}.lora_{part}.weight": torch.full((2, 2), float(number))
        for number, layer in enumerate(layers)
        for part in ("down", "up")
    }
    config = types.SimpleNamespace(layers_per_block=2)
    mapped = lora_conversion_utils._maybe_map_sgm_blocks_to_diffusers(dict(files), config)
    found, _ = lora_conversion_utils._convert_non_diffusers_lora_to_diffusers(mapped)
    theirs = {names.read(name).layer: float(tensor[0, 0]) for name, tensor in found.items()}
    assert {names.read(name).layer: float(tensor[0, 0]) for name, tensor in files.items()} == theirs
    assert len(theirs) == len(layers)


def of_words(model, chunks):
    """Embeddings and pooled ones of texts with weights, in float64 as the WebUI means them.

    Each encoder's embeddings are weighed by themselves; the pooled ones are the first chunk's.
    """
    wide, pooled = [], []
    for end in ("", "_2"):
        tokenizer, encoder = model.parts[f"tokenizer{end}"], model.parts[f"text_encoder{end}"]
        embeds = []
        for chunk in chunks:
            ids, weights = [tokenizer.bos_token_id], [1.0]
            for words, weight in chunk:
                own = tokenizer(words, add_special_tokens=False).input_ids
                ids, weights = ids + own, weights + [weight] * len(own)
            ids.append(tokenizer.eos_token_id)
            ids += [tokenizer.pad_token_id] * (77 - len(ids))
            weights += [1.0] * (77 - len(weights))
            with torch.no_grad():
                found = encoder(torch.tensor([ids]), output_hidden_states=True)
            plain = found.hidden_states[-2][0].double().numpy()
            weighed = plain * np.array(weights)[:, None]
            embeds.append(weighed * plain.mean() / weighed.mean())
            pooled.append(found[0][0].numpy())
        wide.append(np.concatenate(embeds))
    return np.concatenate(wide, 1), pooled[len(chunks)]


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        ("red (blue:1.4)", [[("red", 1.0), ("blue", 1.4)]]),
        ("red BREAK (bed:0.5)", [[("red", 1.0)], [("bed", 0.5)]]),
        ("red " * 80, [[("red " * 75, 1.0)], [("red " * 5, 1.0)]]),
    ],
)
def test_words_of_the_webui(model, prompt, chunks):
    request = json.dumps({"prompt": prompt, "prompt_syntax": "webui", "guidance_scale": 1})
    (row, _) = model.ours._conditioning(model.ours.request(request).settings, ())
    embeds, pooled = of_words(model, chunks)
    for found, wanted in ((row["encoder_hidden_states"], embeds), (row["text_embeds"], pooled)):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()
