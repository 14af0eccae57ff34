"""The files that the tokenizer stage reads, whatever the source holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from triptych import trained_words
from triptych_export.errors import ExportError
from triptych_export.source import read_json

OPTIONAL = ("tokenizer_config.json", "special_tokens_map.json", trained_words.FILE)
FLAGS = ("lstrip", "normalized", "rstrip", "single_word", "special")
"""What transformers keeps of an added token beside its text: how the text around it is read."""


def write_tokenizer(source: Path, target: Path) -> None:
    """Write vocab.json, merges.txt and the optional files of `source` into `target`.

    Newer releases of transformers save tokenizer.json alone; the two are taken out of it then.
    Added tokens, as textual inversion has them, go to the configuration, where transformers
    looks for them (`added_tokens_decoder`). ExportError for no tokenizer of CLIP's kind.
    """
    vocab, merges = _read_vocabulary(source)
    if merges is None:
        shutil.copyfile(source / "vocab.json", target / "vocab.json")
        shutil.copyfile(source / "merges.txt", target / "merges.txt")
    else:
        (target / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
        (target / "merges.txt").write_text(merges, encoding="utf-8")
    for name in OPTIONAL:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    added = added_tokens(source)
    if any(token["content"] not in vocab for token in added.values()):
        config = _optional(source / "tokenizer_config.json")
        config["added_tokens_decoder"] = {str(number): token for number, token in added.items()}
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (target / "tokenizer_config.json").write_text(text, encoding="utf-8")


def added_tokens(source: Path) -> dict[int, dict[str, Any]]:
    """The tokens beside the vocabulary's, by number: `content` and `FLAGS`.

    They stand in added_tokens.json, since transformers 4.34 in tokenizer_config.json too, and since
    5 in tokenizer.json alone; of two files that have a token, the later in this list is believed.
    """
    plain = dict.fromkeys(FLAGS, False)
    found = {
        number: {"content": content, **plain, "normalized": True}
        for content, number in _optional(source / "added_tokens.json").items()
    }
    config = _optional(source / "tokenizer_config.json")
    found.update(
        (int(number), token) for number, token in config.get("added_tokens_decoder", {}).items()
    )
    single = _optional(source / "tokenizer.json")
    found.update((token["id"], token) for token in single.get("added_tokens", ()))
    return {
        number: {key: token.get(key, plain.get(key)) for key in ("content", *FLAGS)}
        for number, token in sorted(found.items())
    }


def count_tokens(source: Path) -> int:
    """How many rows a text encoder's table needs for this tokenizer."""
    numbers = _read_vocabulary(source)[0].values()
    return 1 + max(*numbers, *added_tokens(source), 0)


def _read_vocabulary(source: Path) -> tuple[dict[str, int], str | None]:
    """The vocabulary, and the merges where they have no file of their own."""
    if (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
        return read_json(source / "vocab.json"), None
    if (source / "tokenizer.json").is_file():
        return split_tokenizer(read_json(source / "tokenizer.json"))
    raise ExportError(f"{source}: neither vocab.json and merges.txt nor tokenizer.json")


def split_tokenizer(tokenizer: dict) -> tuple[dict, str]:
    """vocab.json's object and merges.txt's text, out of tokenizer.json's object.

    Special tokens are part of the vocabulary; other added ones are not.
    """
    model = tokenizer.get("model", {})
    if model.get("type") != "BPE":
        raise ExportError(f"the tokenizer is {model.get('type')}, not CLIP's byte-level BPE")
    vocab = dict(model["vocab"])
    for token in tokenizer.get("added_tokens", []):
        if token.get("special"):
            vocab.setdefault(token["content"], token["id"])
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return vocab, "\n".join(["#version: 0.2", *merges]) + "\n"


def _optional(path: Path) -> dict:
    return read_json(path) if path.is_file() else {}
