"""The files that the tokenizer stage reads, whatever the source holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from triptych_export.errors import ExportError
from triptych_export.source import read_json

OPTIONAL = ("tokenizer_config.json", "special_tokens_map.json")


def write_tokenizer(source: Path, target: Path) -> None:
    """Write vocab.json, merges.txt and the optional files of `source` into `target`.

    Newer releases of transformers save tokenizer.json alone; the two are taken out of it then.
    """
    if (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
        shutil.copyfile(source / "vocab.json", target / "vocab.json")
        shutil.copyfile(source / "merges.txt", target / "merges.txt")
    elif (source / "tokenizer.json").is_file():
        vocab, merges = split_tokenizer(read_json(source / "tokenizer.json"))
        (target / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
        (target / "merges.txt").write_text(merges, encoding="utf-8")
    else:
        raise ExportError(f"{source}: neither vocab.json and merges.txt nor tokenizer.json")
    for name in OPTIONAL:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def split_tokenizer(tokenizer: dict) -> tuple[dict, str]:
    """vocab.json's object and merges.txt's text, out of tokenizer.json's object."""
    model = tokenizer.get("model", {})
    if model.get("type") != "BPE":
        raise ExportError(f"the tokenizer is {model.get('type')}, not CLIP's byte-level BPE")
    vocab = dict(model["vocab"])
    for token in tokenizer.get("added_tokens", []):
        vocab.setdefault(token["content"], token["id"])
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return vocab, "\n".join(["#version: 0.2", *merges]) + "\n"
