import dataclasses
import warnings

import clip_tokenizer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InvalidRequest, ModelFileError
from triptych.limits import Limits
from triptych.model_files import ModelFiles
from triptych.settings import Settings
from triptych.tokenizer import Tokenizer

FLAGS = ("lstrip", "normalized", "rstrip", "single_word", "special")
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


def test_a_model_whose_files_say_its_words_tells_those_that_it_does_not_know(tmp_path):
    folder = added(tmp_path, len(VOCABULARY))
    asked = [settings("a red <cat> <dog>", "a Circle")]
    assert Tokenizer(folder).encode_settings(asked, model_files())[1] == asked
    (folder / "words.txt").write_text("a\nred\n", encoding="utf-8")
    _, (warned,) = Tokenizer(folder).encode_settings(asked, model_files())
    assert warned.warnings == ("kept", "negative_prompt: this model does not know 'circle'")
    (folder / "words.txt").write_bytes(b"\xff")
    with pytest.raises(
        ModelFileError, match=r"words\.txt: cannot be read .*; write one word a line"
    ):
        Tokenizer(folder)


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
    tensors, warned = tokenizer.encode_settings(images, model_files())
    for name in ("prompt", "negative_prompt"):
        ids = tensors["input_ids" if name == "prompt" else "negative_input_ids"]
        expected, _ = tokenizer.encode([getattr(image, name) for image in images])
        assert ids.dtype == np.int32 and np.array_equal(ids, expected)
        assert (tensors[f"{name}_weights"] == np.ones((3, 77), np.float32)).all()
    assert tensors["clip_skip"].tolist() == [[0]] * 3
    assert warned[0] == images[0]
    assert warned[1].warnings == (
        "kept",
        "prompt is longer than 77 tokens; cut off: 'red circle'",
        "negative_prompt is longer than 77 tokens; cut off: 'circle'",
    )
    assert warned[1].prompt == images[1].prompt
    assert warned[2].warnings[1].endswith("... (3699 characters)")
    assert len(warned[2].warnings[1]) < 300


def webui(prompt, negative_prompt="", clip_skip=None):
    return dataclasses.replace(
        settings(prompt, negative_prompt), prompt_syntax="webui", clip_skip=clip_skip
    )


LAYERS = ModelFiles(64, 64, {}, text_encoder_layers=12)


def test_short_words_without_weights_are_the_same_in_both_syntaxes(tokenizer):
    images = [settings("a red, circle and"), webui("a red, circle and")]
    (plain, _), (other, _) = (tokenizer.encode_settings([one], LAYERS) for one in images)
    assert all(np.array_equal(plain[name], other[name]) for name in plain)


def test_weights_and_chunks_of_the_webui(tokenizer):
    """75 words to a chunk; the negative prompt is filled up with a chunk of nothing."""
    red = VOCABULARY["red</w>"]
    image = webui("(red:1.5) " + "red " * 75, "circle", clip_skip=2)
    tensors, (warned,) = tokenizer.encode_settings([image], LAYERS)
    assert warned == image
    (ids,), (weights,) = tensors["input_ids"], tensors["prompt_weights"]
    assert ids.tolist() == [START] + [red] * 75 + [END] + [START, red] + [END] * 75
    assert weights.tolist() == [1, 1.5] + [1] * 152
    (negative,) = tensors["negative_input_ids"]
    circle = VOCABULARY["circle</w>"]
    assert negative.tolist() == [START, circle] + [END] * 75 + [START] + [END] * 76
    assert tensors["clip_skip"].tolist() == tensors["negative_clip_skip"].tolist() == [[2]]


def test_the_negative_prompt_of_plain_words_has_all_layers_as_in_diffusers(tokenizer):
    image = dataclasses.replace(settings("red"), clip_skip=2)
    tensors, _ = tokenizer.encode_settings([image, webui("red", clip_skip=1)], LAYERS)
    assert tensors["clip_skip"].tolist() == [[2], [1]]
    assert tensors["negative_clip_skip"].tolist() == [[0], [1]]
    assert tensors["negative_clip_skip"].dtype == np.int32


def test_the_tokens_of_a_weighed_word_are_its_own(tokenizer):
    tensors, _ = tokenizer.encode_settings([webui("red(circle:2)")], LAYERS)
    red, circle = VOCABULARY["red</w>"], VOCABULARY["circle</w>"]
    assert tensors["input_ids"][0, :4].tolist() == [START, red, circle, END]
    assert tensors["prompt_weights"][0, :4].tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("images", "model", "said"),
    [
        (
            [webui("red", clip_skip=12)],
            LAYERS,
            "clip_skip: got 12; allowed: an integer from 0 to 11",
        ),
        ([webui("red " * 76), webui("red")], LAYERS, r"prompt: got '\[1, 2\] chunks.*one length"),
        ([webui("red", "red " * 400)], LAYERS, "negative_prompt: .*at most 5 chunks.*need 6"),
        ([webui("(red)")], None, "prompt: got '.red.'; allowed: words without weights"),
        (
            [webui("red", "a BREAK b")],
            None,
            "prompt: .*allowed: words without weights, of one chunk",
        ),
        ([webui("red", clip_skip=1)], None, "clip_skip: got 1; allowed: 0"),
    ],
)
def test_what_the_text_encoder_cannot_do_is_refused(tokenizer, images, model, said):
    with pytest.raises(InvalidRequest, match=said):
        tokenizer.encode_settings(images, model or model_files(), Limits())


def test_a_text_encoder_of_tokens_alone_takes_plain_words_in_either_syntax(tokenizer):
    tensors, _ = tokenizer.encode_settings([webui("red circle")], model_files())
    assert tensors["input_ids"].shape == (1, 77)


def test_vectors_of_one_token_are_one_word_of_the_webui(tmp_path):
    tokens = {
        str(len(VOCABULARY) + at): {"content": f"<toy>{end}", **dict.fromkeys(FLAGS, False)}
        for at, end in enumerate(("", "_1"))
    }
    folder = clip_tokenizer.write(tmp_path, model_max_length=77, added_tokens_decoder=tokens)
    first = len(VOCABULARY)
    tensors, _ = Tokenizer(folder).encode_settings([webui("red " * 74 + "(<toy>:2)")], LAYERS)
    ids, weights = tensors["input_ids"][0], tensors["prompt_weights"][0]
    assert ids[74:80].tolist() == [VOCABULARY["red</w>"], END, END, START, first, first + 1]
    assert weights[78:81].tolist() == [2, 2, 1]


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
