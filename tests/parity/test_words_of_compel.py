"""The WebUI's words where compel means the same: without weights, escaped, long, layers skipped.

A weight is another thing there: compel goes from the embeddings of the empty prompt, or of the
prompt without the word, where the WebUI multiplies.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from compel import Compel, ReturnedEmbeddingsType, SplitLongTextMode
from test_words import LEAST, SMALL, drawn, ours, reference  # noqa: F401

from triptych_export.picture import psnr

RETURNED = [
    ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
    ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NORMALIZED,
]
"""By clip_skip."""


@pytest.mark.parametrize("clip_skip", [0, 1])
@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a red circle left of a green star", "blue"),
        (r"a red circle \(a star\)", ""),
        ("red " * 74 + "circle star", "blue"),
        ("blue", "a yellow sun " * 60),
    ],
    ids=["short", "escaped", "long", "long negative"],
)
def test_embeddings_and_picture_are_those_of_compel(ours, reference, prompt, negative, clip_skip):  # noqa: F811
    compel = Compel(
        reference.tokenizer,
        reference.text_encoder,
        truncate_long_prompts=False,
        returned_embeddings_type=RETURNED[clip_skip],
        split_long_text_mode=SplitLongTextMode.WORDS,
    )
    with torch.no_grad():
        expected = compel.pad_conditioning_tensors_to_same_length(
            [compel(prompt), compel(negative)]
        )
    words = {"prompt": prompt, "negative_prompt": negative, "prompt_syntax": "webui"}
    request = json.dumps({**SMALL, **words, "clip_skip": clip_skip})
    for found, wanted in zip(ours.embeds(ours.request(request).settings), expected):
        wanted = wanted.numpy()[0]
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    picture = drawn(reference, prompt_embeds=expected[0], negative_prompt_embeds=expected[1])
    assert psnr(ours.pixels(request), picture) >= LEAST
