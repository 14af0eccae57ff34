"""clip_skip, guidance_rescale, weights and chunks, against diffusers with the weights served.

What the WebUI's syntax means stands here in float64, from its description: a chunk of 75 tokens
between start and end is encoded by itself; its embeddings are multiplied by the weights of their
tokens, and then by what gives the chunk the mean that it had; the chunks stand one after another.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from triptych.pipeline import Pipeline
from triptych_export.picture import psnr
from triptych_export.rebuild import pipeline

CHECKOUT = Path(__file__).parents[2]
REPOSITORY = Path(os.environ.get("TRIPTYCH_TEST_REPOSITORY", CHECKOUT / "model_repository"))
LEAST = 40.0
SMALL = {"height": 128, "width": 128, "num_inference_steps": 5, "seed": 3, "scheduler": "ddim"}
SMALL["guidance_scale"] = 5.0
SHORT = {"prompt": "a red circle left of a green star", "negative_prompt": "blue"}
SUN = "a yellow sun over green hills at sunset"

CASES = [
    ("a (red:1.4) circle", [[("a", 1), ("red", 1.4), ("circle", 1)]]),
    ("((a red)) [circle]", [[("a red", 1.21), ("circle", 1 / 1.1)]]),
    ("(a (red:1.5) star:0.5)", [[("a", 0.5), ("red", 0.75), ("star", 0.5)]]),
    ("a red circle BREAK (a star:1.3)", [[("a red circle", 1)], [("a star", 1.3)]]),
    ("red " * 80, [[("red " * 75, 1)], [("red " * 5, 1)]]),
    (
        "red " * 70 + ", (blue:1.2) " + "red " * 9,
        [[("red " * 70 + ",", 1)], [("blue", 1.2), ("red " * 9, 1)]],
    ),
]
"""A prompt, and the texts with their weights of each of its chunks."""


@pytest.fixture(scope="module")
def ours():
    return Pipeline(REPOSITORY)


@pytest.fixture(scope="module")
def reference():
    diffusers.logging.set_verbosity_error()
    made = pipeline(REPOSITORY)
    made.set_progress_bar_config(disable=True)
    # diffusers 0.42 looks for the encoder where transformers had it before 5.6.
    object.__setattr__(made.text_encoder, "text_model", made.text_encoder)
    made.scheduler = diffusers.DDIMScheduler.from_config(made.scheduler.config)
    return made


def drawn(reference, **settings) -> np.ndarray:
    settings = {**SMALL, **settings}
    del settings["scheduler"]
    generator = torch.Generator("cpu").manual_seed(settings.pop("seed"))
    return np.asarray(reference(generator=generator, **settings).images[0])


def of_description(reference, chunks, most: int) -> np.ndarray:
    """The embeddings [1, 77 most, channels] of chunks of texts with weights, in float64."""
    tokenizer, encoder = reference.tokenizer, reference.text_encoder.double()
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    pad = tokenizer.pad_token_id
    found = []
    for chunk in [*chunks, *[[]] * (most - len(chunks))]:
        ids, weights = [start], [1.0]
        for text, weight in chunk:
            tokens = tokenizer(text, add_special_tokens=False).input_ids
            ids, weights = ids + tokens, weights + [weight] * len(tokens)
        ids, weights = [*ids, end], [*weights, 1.0]
        ids, weights = ids + [pad] * (77 - len(ids)), weights + [1.0] * (77 - len(weights))
        with torch.no_grad():
            plain = encoder(torch.tensor([ids])).last_hidden_state.numpy()[0]
        weighed = plain * np.array(weights)[:, None]
        found.append(weighed * (plain.mean() / weighed.mean()))
    encoder.float()
    return np.concatenate(found)


@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
def test_clip_skip_is_that_of_diffusers(ours, reference, clip_skip):
    request = {**SMALL, **SHORT, "clip_skip": clip_skip}
    expected = drawn(reference, **SHORT, clip_skip=clip_skip or None)
    assert psnr(ours.pixels(json.dumps(request)), expected) >= LEAST
    if clip_skip:
        assert psnr(expected, drawn(reference, **SHORT)) < LEAST


@pytest.mark.parametrize("rescale", [0.5, 1.0])
def test_guidance_rescale_is_that_of_diffusers(ours, reference, rescale):
    request = {**SMALL, **SHORT, "guidance_rescale": rescale}
    expected = drawn(reference, **SHORT, guidance_rescale=rescale)
    assert psnr(ours.pixels(json.dumps(request)), expected) >= LEAST
    assert psnr(expected, drawn(reference, **SHORT)) < LEAST


@pytest.mark.parametrize(("prompt", "chunks"), CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("negative", ["", "(blue:1.5)"])
def test_the_webuis_words_are_as_described(ours, reference, prompt, chunks, negative):
    request = {**SMALL, "prompt": prompt, "negative_prompt": negative, "prompt_syntax": "webui"}
    text = json.dumps(request)
    other = [[("blue", 1.5)]] if negative else [[]]
    expected = [of_description(reference, one, len(chunks)) for one in (chunks, other)]
    for found, wanted in zip(ours.embeds(ours.request(text).settings), expected):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    embeds = [torch.from_numpy(one[None]).float() for one in expected]
    picture = drawn(reference, prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1])
    assert psnr(ours.pixels(text), picture) >= LEAST


def test_plain_words_are_those_of_diffusers_whatever_they_hold(ours, reference):
    words = {"prompt": "a (red:1.4) [circle], BREAK " + SUN, "negative_prompt": "(blue)"}
    expected = drawn(reference, **words)
    assert psnr(ours.pixels(json.dumps({**SMALL, **words})), expected) >= LEAST
