import warnings

import clip_tokenizer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import ModelFileError
from triptych.model_files import ModelFiles
from triptych.settings import Settings
from triptych.tokenizer import Tokenizer

VOCABULARY = clip_tokenizer.vocabulary()
START, END = VOCABULARY[clip_tokenizer.START], VOCABULARY[clip_tokenizer.END]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(clip_tokenizer.write(tmp_path_factory.mktemp("tokenizer")))


def settings(prompt, negative_prompt=""):
    return Settings(prompt, negative_prompt, 20, 7.5, 1, 64, 64, "ddim", "png", ("kept",))


def test_a_prompt_is_its_tokens_between_start_and_end_and_padding(tokenizer):
    input_ids, cut_off = tokenizer.encode(["a Red\n circle", ""])
    red, circle = VOCABULARY["red</w>"], VOCABULARY["circle</w>"]
    assert input_ids.shape == (2, 77)
    assert input_ids.dtype == np.int32
    assert input_ids[0, :6].tolist() == [START, VOCABULARY["a</w>"], red, circle, END, END]
    assert input_ids[1].tolist() == [START] + [END] * 76
    assert cut_off == ["", ""]


def model_files(tokens=None, positions=None):
    """A model's numbers, as far as the tokenizer looks at them."""
    return ModelFiles(64, 64, {}, vocab_size=tokens, max_position_embeddings=positions)


@pytest.mark.parametrize("more", [0, 127])
def test_a_text_encoder_of_the_same_tokens_fits(tokenizer, more):
    tokenizer.check_fits(model_files(max(VOCABULARY.values()) + 1 + more, 77))


@pytest.mark.parametrize("more", [-1, 128])
def test_a_text_encoder_of_other_tokens_does_not(tokenizer, more):
    tokens = max(VOCABULARY.values()) + 1
    says = rf"{tokens} tokens, but the text encoder has {tokens + more}; copy the tokenizer's files"
    with pytest.raises(ModelFileError, match=says):
        tokenizer.check_fits(model_files(tokens + more, 77))


def test_a_text_encoder_of_shorter_prompts_does_not(tokenizer):
    with pytest.raises(ModelFileError, match="prompts of 77 tokens, but the text encoder takes 64"):
        tokenizer.check_fits(model_files(positions=64))


def test_nothing_is_said_of_a_text_encoder_that_nothing_is_known_of(tokenizer):
    tokenizer.check_fits(model_files())


ADDED = {"<cat>": {}, "<cat>_1": {}, "<cat>_2": {}, "<dog>": {}, "<Big>": {"normalized": False}}


def added(folder, first):
    """A tokenizer with the tokens of two embeddings in `folder`, one of three vectors."""
    tokens = {
        str(first + n): {"content": token, "normalized": True, "special": False, **flags}
        for n, (token, flags) in enumerate(ADDED.items())
    }
    return clip_tokenizer.write(folder, model_max_length=77, added_tokens_decoder=tokens)


def test_added_tokens_are_tokens_and_one_of_several_vectors_stands_for_all(tmp_path):
    tokenizer = Tokenizer(added(tmp_path, len(VOCABULARY)))
    cat, cat_1, cat_2, dog, big = range(len(VOCABULARY), len(VOCABULARY) + 5)
    red = VOCABULARY["red</w>"]
    (ids,), _ = tokenizer.encode(["red <cat> <DOG> <Big>"])
    assert ids[:8].tolist() == [START, red, cat, cat_1, cat_2, dog, big, END]
    tokenizer.check_fits(model_files(len(VOCABULARY) + 5, 77))
    with pytest.raises(ModelFileError, match="tokens, but the text encoder has"):
        tokenizer.check_fits(model_files(len(VOCABULARY), 77))


def test_an_added_token_of_another_number_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="<cat> has not the number"):
        Tokenizer(added(tmp_path, len(VOCABULARY) + 7))


def test_no_prompts_are_no_rows(tokenizer):
    input_ids, cut_off = tokenizer.encode([])
    assert input_ids.shape == (0, 77)
    assert cut_off == []


@pytest.mark.parametrize("words", [74, 75, 76, 200])
def test_a_long_prompt_keeps_its_first_75_tokens_and_says_what_was_cut(tokenizer, words):
    input_ids, (cut_off,) = tokenizer.encode([" ".join(["red"] * words)])
    row = [START] + [VOCABULARY["red</w>"]] * min(words, 75) + [END]
    assert input_ids[0].tolist() == row + [END] * (77 - len(row))
    assert cut_off == " ".join(["red"] * (words - 75))


def test_the_settings_get_a_warning_for_each_prompt_that_was_cut(tokenizer):
    images = [
        settings("red", "circle"),
        settings("red " * 76 + "circle", "circle " * 76),
        settings("red " * 1000),
    ]
    input_ids, negative_ids, warned = tokenizer.encode_settings(images)
    assert np.array_equal(input_ids, tokenizer.encode([image.prompt for image in images])[0])
    assert np.array_equal(
        negative_ids, tokenizer.encode([image.negative_prompt for image in images])[0]
    )
    assert warned[0] == images[0]
    assert warned[1].warnings == (
        "kept",
        "prompt is longer than 77 tokens; cut off: 'red circle'",
        "negative_prompt is longer than 77 tokens; cut off: 'circle'",
    )
    assert warned[1].prompt == images[1].prompt
    assert warned[2].warnings[1].endswith("... (3699 characters)")
    assert len(warned[2].warnings[1]) < 300


def test_the_padding_and_the_length_are_the_tokenizers_own(tmp_path):
    folder = clip_tokenizer.write(tmp_path, model_max_length=10, pad_token="!")
    tokenizer = Tokenizer(folder)
    assert tokenizer.length == 10
    input_ids, _ = tokenizer.encode(["red", "red " * 9])
    red, pad = VOCABULARY["red</w>"], VOCABULARY["!"]
    assert input_ids.tolist() == [[START, red, END] + [pad] * 7, [START] + [red] * 8 + [END]]


def test_no_library_warns_of_a_long_prompt(tokenizer, caplog, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode(["red " * 5000])
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@given(st.lists(st.text(max_size=200), min_size=1, max_size=3))
def test_any_text_has_tokens_of_the_vocabulary(tokenizer, prompts):
    input_ids, cut_off = tokenizer.encode(prompts)
    assert input_ids.shape == (len(prompts), 77)
    assert (input_ids[:, 0] == START).all()
    assert (input_ids >= 0).all()
    assert (input_ids <= END).all()
    assert len(cut_off) == len(prompts)
    for row, prompt in zip(input_ids, prompts):
        assert END in row
        assert np.array_equal(tokenizer.encode([prompt])[0][0], row)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(tmp_path, name):
    (clip_tokenizer.write(tmp_path) / name).unlink()
    with pytest.raises(ModelFileError, match=rf"{name}: no such file; copy the tokenizer's files"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.json", b""),
        ("vocab.json", b"[]"),
        ("vocab.json", b'{"a": "b"}'),
        ("vocab.json", b"\xff\xfe"),
        ("merges.txt", b"#version: 0.2\nnosuch token\n"),
        ("merges.txt", b"\xff\xfe"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b'{"pad_token": "<no such token>"}'),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_place_and_the_fix(tmp_path, name, text):
    (clip_tokenizer.write(tmp_path) / name).write_bytes(text)
    with pytest.raises(ModelFileError) as caught:
        Tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "copy the tokenizer's files from the model" in str(caught.value)


def test_a_vocabulary_without_the_special_tokens_is_refused(tmp_path):
    clip_tokenizer.write(tmp_path)
    path = tmp_path / "vocab.json"
    path.write_text(path.read_text(encoding="utf-8").replace("startoftext", "beginning"))
    with pytest.raises(ModelFileError, match=r"vocab\.json: has no token <\|startoftext\|>"):
        Tokenizer(tmp_path)
