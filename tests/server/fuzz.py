"""Requests that nobody should send, made up from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import numpy as np

from tests.server.calls import texts
from triptych.schedulers import NAMES
from triptych.settings import Settings

SMALLEST = {"height": 64, "width": 64, "num_inference_steps": 1}

_WORDS = (
    *("red", "\0", "🦊", "שלום", "\u202e", "\ud800", "'; --", "..\\..\\passwd", "$(id)", "%s%n"),
    *("{", "}", "[", '"', "\\", "\x1b[2J", "a" * 300, "<|endoftext|>", "\r\n", "NaN", " "),
)
_VALUES = (
    *(None, True, False, 0, 1, -1, 7, 8, 64, 65, 100, 128, 10**6, 10**9, 2**32, 2**64, 2**64 - 1),
    *(0.0, -0.0, 1.5, 7.5, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 10**400),
    *("", "x", "ddim", "euler", "png", "64", [], [1], {}, {"a": 1}),
)
_KEYS = (
    *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "height"),
    *("width", "scheduler", "output_format", "timeout", "deadline", "warnings", "steps", "", "a.b"),
)


def raw(chance: random.Random, model: str) -> bytes:
    """INPUT_0: a request for a small picture, more or less spoiled."""
    kind = chance.randrange(6)
    if kind == 0:
        return b"{" * chance.randrange(2) + b"\xff" + chance.randbytes(chance.randrange(200))
    text = " ".join(chance.choices(_WORDS, k=chance.randrange(6)))
    if kind == 1 and model == "tokenizer":  # which draws no prompt at the model's own size
        return ("{" * chance.randrange(2) + text).encode("utf-8", "surrogatepass")
    asked = {"prompt": text or "x", **SMALLEST}
    for _ in range(chance.randrange(3)):
        asked[chance.choice(_KEYS)] = chance.choice((*_VALUES, text))
    if asked["num_inference_steps"] in range(2, 201):
        asked["num_inference_steps"] = 2  # more takes long and shows no more
    encoded = json.dumps(asked, ensure_ascii=chance.random() < 0.5)
    encoded = encoded.encode("utf-8", "surrogatepass")
    if kind == 2 and model == "tokenizer":
        at = chance.randrange(len(encoded))
        encoded = encoded[:at] + chance.randbytes(1) + encoded[at + 1 :]
    elif kind == 3:
        encoded = encoded[:-1] + b', "seed": 1, "seed": 2}'
    return encoded


def _settings(chance: random.Random, side: int) -> bytes:
    """The tensor between stages, for latents `side` by 8: in every second case as it should be."""
    if chance.random() < 0.5:
        return raw(chance, "")
    scheduler = chance.choice(NAMES)
    good = Settings("x", "", 2, 5.0, chance.getrandbits(64), side * 8, 64, scheduler, "png")
    return good.to_json().encode()


def requests(seed: int, channels: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Endless models and inputs; `channels` is what the UNet takes of text embeddings."""
    chance = random.Random(seed)
    while True:
        if chance.random() < 0.7:
            model = chance.choice(("sd_ensemble", "tokenizer"))
            batch = [raw(chance, model) for _ in range(chance.choice((1, 1, 1, 2, 9)))]
            yield model, {"INPUT_0": texts(*batch)}
            continue
        numbers = np.random.default_rng(chance.randrange(2**32))

        def floats(*shape: int, numbers=numbers) -> np.ndarray:
            array = numbers.standard_normal(shape, dtype=np.float32)
            if array.size and chance.random() < 0.3:
                array.flat[0] = chance.choice((np.nan, np.inf, -np.inf, 3e38))
            return array

        batch, side, width = (chance.choice(sizes) for sizes in ((1, 1, 2, 40), (1, 8), (0, 5)))
        width = channels if chance.random() < 0.6 else width
        length = chance.choice((1, 77, 100))
        embeds = floats(batch, length, width)
        settings = texts(*(_settings(chance, side) for _ in range(batch)))
        files = [[chance.choice((b"", b"", b"x")) for _ in range(2)] for _ in range(batch)]
        pictures = np.array(files, dtype=object)
        ids = numbers.integers(-(2**31), 2**31, (batch, length), dtype=np.int32)
        stages = {
            "text_encoder": {
                "input_ids": ids,
                "prompt_weights": floats(batch, length),
                "clip_skip": numbers.integers(-2, 9, (batch, 1), dtype=np.int32),
            },
            "unet": {
                "sample": floats(batch, 4, side, 8),
                "timestep": floats(batch, 1),
                "encoder_hidden_states": embeds,
            },
            "unet_loop": {
                "prompt_embeds": embeds,
                "negative_prompt_embeds": embeds,
                "settings": settings,
                "pictures": pictures,
            },
            "vae_decoder": {"latent_sample": floats(batch, 4, side, 8)},
            "image_encoder": {
                "sample": floats(batch, 3, side, 8),
                "settings": settings,
                "pictures": pictures,
            },
        }
        model = chance.choice(list(stages))
        inputs = stages[model]
        if chance.random() < 0.2:
            inputs.pop(chance.choice(list(inputs)))
        if inputs and chance.random() < 0.2:
            name = chance.choice(list(inputs))
            inputs[name] = inputs[name][0] if len(inputs[name]) else inputs[name][None]
        yield model, inputs
