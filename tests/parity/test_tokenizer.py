"""Tokens and warnings against diffusers' own pipeline code, prompt by prompt."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from triptych.tokenizer import Tokenizer

sys.path.append(str(Path(__file__).parents[1] / "unit"))
import clip_tokenizer

PROMPTS = [
    "",
    "a red circle",
    "A  RED\tCircle, and — “quotes” 123 'tis",
    "red " * 75,
    "red " * 76,
    "red " * 80 + "circle, and  more <|endoftext|> after",
    "Café ﬁancé Ångström ẞ İstanbul",
    "中文 と 日本語 مرحبا עברית",
    "👩‍🚀🐎 \u200b\ufeff\x01",
    "x" * 3000,
    "<|startoftext|> red <|endoftext|>",
]


@pytest.fixture(scope="module", params=[{}, {"pad_token": "!"}], ids=["sd1", "sd2"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return clip_tokenizer.write(folder, model_max_length=77, **request.param)


class Pipeline(StableDiffusionPipeline):
    """diffusers' encode_prompt with nothing but a tokenizer and a text encoder that notes ids."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        sizes = {"hidden_size": 8, "intermediate_size": 16}
        layers = {"num_hidden_layers": 1, "num_attention_heads": 1}
        config = CLIPTextConfig(vocab_size=len(tokenizer), **sizes, **layers)
        self.text_encoder = CLIPTextModel(config)
        self.input_ids = []
        self.text_encoder.register_forward_pre_hook(
            lambda _, arguments: self.input_ids.append(arguments[0].numpy())
        )

    unet = None

    def ids(self, prompt, negative_prompt):
        """The ids that reach the text encoder: the prompt's, the negative prompt's."""
        self.input_ids.clear()
        with torch.no_grad():
            self.encode_prompt(prompt, "cpu", 1, True, negative_prompt)
        return self.input_ids


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_the_text_encoder_gets_diffusers_tokens(folder, prompt, caplog):
    pipeline = Pipeline(CLIPTokenizer.from_pretrained(str(folder)))
    logger = logging.getLogger("diffusers")
    caplog.set_level(logging.WARNING, "diffusers")
    logger.addHandler(caplog.handler)
    try:
        expected, expected_negative = pipeline.ids(prompt, prompt[::-1])
    finally:
        logger.removeHandler(caplog.handler)
    input_ids, cut_off = Tokenizer(folder).encode([prompt, prompt[::-1]])
    assert np.array_equal(input_ids[:1], expected)
    assert np.array_equal(input_ids[1:], expected_negative)
    # diffusers logs what it cuts off of the prompt, and of the negative prompt nothing.
    logged = [
        record.getMessage() for record in caplog.records if "truncated" in record.getMessage()
    ]
    assert len(logged) == bool(cut_off[0])
    if cut_off[0]:
        assert logged[0].endswith(str([cut_off[0]]))
