import json

import pytest

from triptych_export.errors import ExportError
from triptych_export.tokenizer_files import count_tokens, write_tokenizer


@pytest.fixture
def folders(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


@pytest.mark.parametrize("merges", [["r e", "re d</w>"], [["r", "e"], ["re", "d</w>"]]])
def test_vocabulary_and_merges_come_out_of_the_single_file(folders, merges):
    source, target = folders
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"r": 0, "é": 1}, "merges": merges},
        "added_tokens": [
            {"content": "r", "id": 0},
            {"content": "<|endoftext|>", "id": 2, "special": True},
        ],
    }
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_tokenizer(source, target)
    vocab = json.loads((target / "vocab.json").read_text(encoding="utf-8"))
    assert vocab == {"r": 0, "é": 1, "<|endoftext|>": 2}
    assert (target / "merges.txt").read_text() == "#version: 0.2\nr e\nre d</w>\n"


def test_files_that_are_there_are_copied_as_they_are(folders):
    source, target = folders
    texts = {
        "vocab.json": '{"a":0}',
        "merges.txt": "#version: 0.2\n",
        "tokenizer_config.json": "{}",
        "special_tokens_map.json": '{"pad_token": "!"}',
        "words.txt": "a\n",
    }
    for name, text in texts.items():
        (source / name).write_text(text)
    (source / "tokenizer.json").write_text('{"model": "not read"}')
    write_tokenizer(source, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == texts


@pytest.mark.parametrize("kind", ["single", "decoder", "old"])
def test_added_tokens_are_carried_from_wherever_they_stand(folders, kind):
    source, target = folders
    vocab = {"a": 0, "<|endoftext|>": 1}
    token = {"content": "<cat>", "normalized": True, "special": False}
    if kind == "single":
        model = {"type": "BPE", "vocab": vocab, "merges": []}
        end = {"content": "<|endoftext|>", "id": 1, "special": True}
        text = json.dumps({"model": model, "added_tokens": [end, {"id": 2, **token}]})
        (source / "tokenizer.json").write_text(text)
    else:
        (source / "vocab.json").write_text(json.dumps(vocab))
        (source / "merges.txt").write_text("#version: 0.2\n")
        config = {"added_tokens_decoder": {"2": token}} if kind == "decoder" else {"pad_token": "a"}
        (source / "tokenizer_config.json").write_text(json.dumps(config))
        (source / "added_tokens.json").write_text('{"<cat>": 2}')
    write_tokenizer(source, target)
    assert "<cat>" not in json.loads((target / "vocab.json").read_text())
    config = json.loads((target / "tokenizer_config.json").read_text())
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "special"), False)
    expected = {"content": "<cat>", "normalized": True, **flags}
    assert config["added_tokens_decoder"]["2"] == expected
    assert (kind == "old") == ("pad_token" in config)
    assert count_tokens(source) == 3


@pytest.mark.parametrize("text", [None, '{"model": {"type": "Unigram"}}'])
def test_another_tokenizer_is_refused(folders, text):
    source, target = folders
    if text:
        (source / "tokenizer.json").write_text(text)
    with pytest.raises(ExportError):
        write_tokenizer(source, target)
