"""Prompts in the WebUI's syntax, of any length, and clip_skip, through the whole ensemble."""

import base64

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.server.calls import SMALL, pixels, request, texts
from triptych.picture.metadata import read_settings

LONG = ", ".join(["a red circle on a blue background"] * 12)
WEBUI = {**SMALL, "prompt_syntax": "webui"}


def far(first: bytes, second: bytes) -> float:
    return float(np.abs(pixels(first).astype(int) - pixels(second)).mean())


def test_plain_words_draw_the_same_in_either_syntax(calls):
    (plain,) = calls.pictures(request("a red circle", **SMALL))
    (webui,) = calls.pictures(request("a red circle", **WEBUI))
    assert np.array_equal(pixels(plain), pixels(webui))
    assert read_settings(plain).prompt_syntax is None
    assert read_settings(webui).prompt_syntax == "webui"


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a (red:3) circle"},
        {"prompt": LONG},
        {"prompt": "a red circle", "negative_prompt": LONG},
        {"prompt": "a red circle", "clip_skip": 1},
        {"prompt": "a red circle", "guidance_rescale": 1},
        {"prompt": "a red circle", "guidance_stop": 0},
        {"prompt": "a red circle", "cache_interval": 2},
    ],
)
def test_each_of_them_changes_the_picture(calls, other):
    usual, changed = ({**WEBUI, **one} for one in ({"prompt": "a red circle"}, other))
    pictures = [calls.pictures(request(**one))[0] for one in (usual, changed)]
    assert far(*pictures) > 0.1


def test_a_long_prompt_is_not_cut_and_is_the_same_in_any_company(calls):
    """Its rows are calls of their own length; a short one is drawn at the same time."""
    alone = calls.pictures(request(LONG, **WEBUI))
    inputs = [{"INPUT_0": texts(request(one, **WEBUI))} for one in (LONG, "a blue star", LONG)]
    started = [calls.start("sd_ensemble", one) for one in inputs]
    files = [base64.b64decode(one.wait().result.as_numpy("OUTPUT_0").item()) for one in started]
    assert files[0] == files[2] == alone[0]
    settings = read_settings(alone[0])
    assert settings.warnings == () and settings.prompt == LONG
    (cut,) = calls.pictures(request(LONG, **SMALL))
    assert "longer than 77 tokens" in read_settings(cut).warnings[0]


def test_words_that_the_model_does_not_know_are_said_in_the_picture(calls, repository):
    asked = {**WEBUI, "negative_prompt": "[blurry] (blue:1.2)"}
    (file,) = calls.pictures(request("a (photo:1.2) of a red dog", **asked))
    told = [
        "prompt: this model does not know 'photo', 'dog'",
        "negative_prompt: this model does not know 'blurry'",
    ]
    has_words = (repository / "tokenizer" / "1" / "words.txt").is_file()
    assert list(read_settings(file).warnings) == (told if has_words else [])


def test_tokens_weights_and_embeddings_of_a_long_prompt(calls):
    made = calls.tokens(request(LONG, **WEBUI))
    length = made["input_ids"].shape[1]
    assert length % 77 == 0 and length > 77
    for name in ("negative_input_ids", "prompt_weights", "negative_prompt_weights"):
        assert made[name].shape == (1, length)
    embeds = calls.embeddings(made)
    assert embeds["prompt_embeds"].shape == embeds["negative_prompt_embeds"].shape
    assert embeds["prompt_embeds"].shape[1] == length


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "a [red:blue:0.5] circle"}, "tokenizer: prompt: got .*a change at a step"),
        ({"prompt": "x", "clip_skip": 4}, "tokenizer: clip_skip: got 4; allowed: .* 0 to 3"),
        ({"prompt": LONG * 9}, "tokenizer: prompt: .* at most 5 chunks"),
    ],
)
def test_what_cannot_be_is_refused(calls, changes, said):
    with pytest.raises(InferenceServerException, match=said) as caught:
        calls.pictures(request(**{**WEBUI, **changes}))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
