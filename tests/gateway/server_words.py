"""All that a server says to the page, by making it say so: its warnings, and what it allows."""

import dataclasses
import re
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tests import lora_files
from tests.gateway.pictures import file_of, flat, text
from tests.gateway.test_page_words import CONFIG
from tests.gateway.test_reading import SETTINGS, own, png
from tests.unit.test_adapted import network
from triptych import webui_prompt
from triptych.denoise.conditioning import of_prompts
from triptych.denoise.denoising import Denoising
from triptych.denoise.start import encoded
from triptych.errors import InvalidRequest
from triptych.fastdeploy.adapted import Adapted
from triptych.fastdeploy.deep_cache import DeepCached
from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.gateway.access import MAX_FILE_BODY
from triptych.gateway.errors import Problem, invalid
from triptych.gateway.keys import Caller, Key, NotAllowed
from triptych.gateway.page import Asked
from triptych.gateway.reading import read
from triptych.limits import Limits
from triptych.lora.folder import LoraFolder
from triptych.lora.request import Lora
from triptych.model_files import ModelFiles
from triptych.names import chosen
from triptych.picture.request import read_request
from triptych.second_pass import SecondPass
from triptych.tokenizer import Tokenizer
from triptych.unread import warnings_of

REPOSITORY = CONFIG.parents[1]
TOKENIZER = Tokenizer(REPOSITORY / "tokenizer" / "1")
MODEL_FILES = ModelFiles.load(REPOSITORY / "unet_loop" / "1")
LIMITS = Limits()
EMBEDS = np.zeros((77, 16), np.float32)


def warnings():
    """Warnings of every kind that the server writes, by what asks for them."""
    asked = dataclasses.replace(SETTINGS, prompt="(red:1.2) " * 30, negative_prompt="blue")
    plain = dataclasses.replace(asked, guidance_scale=1.0)
    between = dataclasses.replace(asked, guidance_start=0.51, guidance_stop=0.52)
    webui = dataclasses.replace(
        asked, prompt="(red __x__ {a|b}", negative_prompt="b) c", prompt_syntax="webui"
    )
    _, warned = TOKENIZER.encode_settings([plain, between, webui], MODEL_FILES)
    for settings in warned:
        yield from settings.warnings
    yield from warnings_of(webui, True, lambda text: False, ["red"])
    yield from warnings_of(plain, False, lambda text: False)

    long = "\u00e9" * 8192
    for file in (own(prompt=long, negative_prompt=long, output_format="jpeg", strength=0.5),):
        yield from read(file).settings["warnings"]
    told = "red\nSteps: 25, Sampler: Exotic, CFG scale: 7, Seed: 1, Size: 64x64, Hires upscale: 2"
    yield from read(png(parameters=told)).settings["warnings"]


class Served(NamedTuple):
    """What a server has."""

    model_files: ModelFiles = MODEL_FILES
    loras: tuple[str, ...] = ("ink", "chalk")
    takes_pictures: bool = True


def with_scheduler(**config):
    return dataclasses.replace(MODEL_FILES, scheduler_config=config)


SERVED = (
    Served(),
    Served(loras=(), takes_pictures=False),
    Served(dataclasses.replace(MODEL_FILES, text_encoder_layers=None)),  # exported through Paddle
    Served(dataclasses.replace(MODEL_FILES, pad_token_id_2=0)),  # SDXL
    Served(dataclasses.replace(MODEL_FILES, unet_in_channels=9)),  # made to paint in pictures
    Served(with_scheduler(_class_name="PNDMScheduler")),
    Served(with_scheduler(_class_name="DDIMScheduler", num_train_timesteps=100, steps_offset=1)),
)
ODD = ("", "odd", "\0", "x" * 20_000, -1, 0, 1.5, 3, 30, 900, 2**64, True, [], {}, ["odd"])
PROMPTS = (
    *('{"prompt": "x"}', "x" * 2**21, "word " * 500, "(red)", "(red:1000)", "(" * 80),
    *("a AND b", "[a|b]", "[a:b:0.4]", "<hypernet:ink:1>"),
    *("<lora:ink:much>", "<lora:ink:9>", "<lora:ink:1>" * 2, "<lora:inc:1>", "<lora:odd:1>"),
    "".join(f"<lora:{number}:1>" for number in range(9)),
)
PICTURES = tuple(
    text(file)
    for file in (
        *(flat((64, 64)), flat((64, 100)), flat((9, 9)), flat((5000, 4000)), flat()[:90], b"odd"),
        file_of(Image.new("L", (64, 64)), "GIF"),
        file_of(
            Image.new("L", (64, 64)),
            "WEBP",
            save_all=True,
            append_images=[Image.new("L", (64, 64), 9)],
        ),
    )
)
LORA = {"name": "ink"}
SECOND = {"width": 128, "height": 128}
TOGETHER = (
    *({"second_pass": {**SECOND, field: odd}} for field in SecondPass._fields for odd in ODD),
    {"second_pass": SECOND, "image": PICTURES[0]},
    {"width": 1024, "height": 1024},
    {"guidance_start": 0.6, "guidance_stop": 0.5},
    {"num_inference_steps": 3, "strength": 0.1, "image": PICTURES[0]},
    {"cache_interval": 2, "scheduler": "heun"},
    {"cache_interval": 2, "loras": [LORA]},
    {"loras": [LORA] * 2},
    {"loras": [LORA] * 9},
    *({"loras": [one]} for one in ({"name": ""}, {"name": "../ink"}, {"name": "ink", "scale": 9})),
    {"eta": 0.5, "scheduler": "euler"},
    {"timestep_spacing": "leading", "scheduler": "lcm"},
    {"num_inference_steps": 60, "scheduler": "lcm"},
    {"num_inference_steps": 150, "scheduler": "ddim"},
    {"num_inference_steps": 100, "scheduler": "ddim", "timestep_spacing": "leading"},
    {"num_inference_steps": 100, "scheduler": "dpmpp_2m", "timestep_spacing": "linspace"},
)
"""Settings that are odd beside each other alone."""

ASKED = (
    *({field: odd} for field in Asked.model_fields for odd in ODD),
    *({"prompt": prompt} for prompt in PROMPTS),
    *(
        {field: prompt, "prompt_syntax": "webui"}
        for field in ("prompt", "negative_prompt")
        for prompt in PROMPTS
    ),
    *({"image": one} for one in PICTURES),
    *({"image": PICTURES[0], "mask_image": one, "width": 64} for one in PICTURES),
    *TOGETHER,
)


def refusal(asked, served, folder):
    """What the gateway or its server says where one refuses what is asked; None if none does."""
    try:
        known = Asked.model_validate({"prompt": "x", **asked}, from_attributes=True)
    except ValidationError as error:
        return invalid(error.errors()).detail
    files = served.model_files
    try:
        chosen(known.model, [])
        request = known.model_dump_json(exclude={"model"}, exclude_none=True).encode()
        takes_pictures = served.takes_pictures
        one = read_request(request, files.defaults(), LIMITS, takes_pictures=takes_pictures)
        loras = LoraFolder(folder).find(webui_prompt.loras_of(one.settings))
        TOKENIZER.encode_settings([one.settings], files, LIMITS)
        start = encoded(*one, files, moments_of) if one.image else None
        Denoising(one.settings, *of_prompts(EMBEDS, EMBEDS), files, start, loras)
    except InvalidRequest as error:
        return str(error)
    return None


def moments_of(sample):
    """What a VAE's encoder gives, of a picture of nothing."""
    return np.zeros((1, 8, sample.shape[2] // 8, sample.shape[3] // 8), np.float32)


def refusals(tmp_path):
    """What is said of each setting of the page, by odd ones: its name, the value, the allowed."""
    for number, served in enumerate(SERVED):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in served.loras:
            (folder / f"{name}.safetensors").touch()
        for asked in ASKED:
            told = refusal(asked, served, folder)
            if told is not None:
                named = re.fullmatch(r"(\w+)\S*: got (.*?); allowed: (.*)", told, re.DOTALL)
                yield named.groups()


def other_refusals(url):
    """What else the page at `url` is told: of a file whose settings it asks for, and of a key."""
    too_long = httpx.post(f"{url}/api/settings", content=bytes(MAX_FILE_BODY + 1))
    yield too_long.json()["message"]
    for file in (flat(), b"odd"):
        with pytest.raises(Problem) as caught:
            read(file)
        yield caught.value.detail.removeprefix("image: ")
    with pytest.raises(NotAllowed) as caught:
        Caller(Key(name="a", sha256="0" * 64, models=["ink"])).check(1, "oil")
    yield str(caught.value)


WIDE = {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (128, 768)}


def refused_by_networks(folder):
    """What is allowed of LoRAs and of cache_interval, by files that do not fit a network."""
    (folder / "empty.safetensors").touch()
    lora_files.write(folder, "wide", lora_files.changes(0, unet=WIDE, text={}))
    loras = LoraFolder(folder)
    empty, wide = loras.find([Lora("empty", 1.0), Lora("wide", 1.0)])
    adapted = Adapted(OnnxGraph(REPOSITORY / "unet" / "1" / "model.onnx"), loras, None)
    replaced = wide._replace(version="that of another file")
    for cannot in (
        *(lambda one=one: adapted.run((one,), {}, 1) for one in (empty, wide, replaced)),
        network("vae_decoder", loras)._adapt,
        lambda: DeepCached(folder / "model.onnx", None),
    ):
        with pytest.raises(InvalidRequest) as caught:
            cannot()
        yield caught.value.allowed
