"""A small tokenizer in CLIP's format: every byte, a few merges, the two special tokens."""

import json

MERGES = ["r e", "re d</w>", "c i", "ci r", "cir c", "circ l", "circl e</w>", "a n", "an d</w>"]
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters():
    """The printable letter that stands for each byte in a byte-level BPE's files."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    letters.update({byte: chr(256 + at) for at, byte in enumerate(others)})
    return [letters[byte] for byte in sorted(letters, key=lambda byte: ord(letters[byte]))]


def vocabulary():
    letters = byte_letters()
    words = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *words, START, END]
    return {token: number for number, token in enumerate(tokens)}


def write(folder, **config):
    """vocab.json and merges.txt; tokenizer_config.json where `config` says something."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    if config:
        text = json.dumps({"tokenizer_class": "CLIPTokenizer", **config})
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return folder
