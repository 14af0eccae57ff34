import json

import pytest

from triptych_export.errors import ExportError
from triptych_export.tokenizer_files import write_tokenizer


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
        "added_tokens": [{"content": "r", "id": 0}, {"content": "<|endoftext|>", "id": 2}],
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
    }
    for name, text in texts.items():
        (source / name).write_text(text)
    (source / "tokenizer.json").write_text("not read")
    write_tokenizer(source, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == texts


@pytest.mark.parametrize("text", [None, '{"model": {"type": "Unigram"}}'])
def test_another_tokenizer_is_refused(folders, text):
    source, target = folders
    if text:
        (source / "tokenizer.json").write_text(text)
    with pytest.raises(ExportError):
        write_tokenizer(source, target)
