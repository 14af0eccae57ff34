"""CLIP's tokens for a prompt, as diffusers takes them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triptych.errors import ModelFileError, shorten
from triptych.model_files import ModelFiles
from triptych.settings import Settings

# Without it transformers warns that it found no framework for networks; none is wanted here.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
from transformers import CLIPTokenizerFast

CLIP_LENGTH = 77
"""The positions of CLIP's text encoder (Radford et al. 2021), where no file says another number."""

PADDING = 127
"""What rounding up to a multiple of 128 adds at the most."""

FIX = "copy the tokenizer's files from the model that the text encoder is of"


class Tokenizer:
    """CLIP's byte-level BPE from a folder's vocab.json and merges.txt.

    tokenizer_config.json and special_tokens_map.json beside them say which tokens were added, which
    one pads and how many there are to a prompt (`length`). Without them the end token pads and
    there are 77.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises ModelFileError, naming the file, for files that are missing or damaged."""
        self._folder = folder
        for name in ("vocab.json", "merges.txt"):
            path = Path(folder) / name
            if not path.is_file():
                raise ModelFileError(path, "no such file", FIX)
        try:
            vocabulary = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
            # The fast one: the same tokens from every release, whether ftfy is installed or not.
            self._tokenizer = CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:
            raise ModelFileError(folder, f"not CLIP's tokenizer ({error})", FIX) from error
        for token in (self._tokenizer.bos_token, self._tokenizer.eos_token, self._pad_token()):
            if token not in vocabulary:
                raise ModelFileError(Path(folder) / "vocab.json", f"has no token {token}", FIX)
        self._vectors = self._added()
        length = self._tokenizer.model_max_length
        self.length = length if length <= 10**6 else CLIP_LENGTH  # transformers' "none" is 10**30

    def check_fits(self, model_files: ModelFiles) -> None:
        """ModelFileError if the text encoder has other tokens or takes shorter prompts.

        It may have up to `PADDING` tokens that are never used. Where the files do not say what it
        has, as older exports do not, nothing is checked.
        """
        tokens, known = 1 + max(self._tokenizer.get_vocab().values()), model_files.vocab_size
        if known is not None and not tokens <= known <= tokens + PADDING:
            problem = f"{tokens} tokens, but the text encoder has {known}"
            raise ModelFileError(self._folder, problem, FIX)
        longest = model_files.max_position_embeddings
        if longest is not None and longest < self.length:
            problem = f"prompts of {self.length} tokens, but the text encoder takes {longest}"
            raise ModelFileError(self._folder, problem, FIX)

    def _added(self) -> dict[str, str]:
        """What to write for an added token of several vectors: TOKEN TOKEN_1 TOKEN_2 ...

        Raises ModelFileError if transformers gave an added token another number than its file has.
        """
        path = Path(self._folder) / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        known = {
            token["content"]: int(number)
            for number, token in config.get("added_tokens_decoder", {}).items()
        }
        vectors = {}
        for token, number in known.items():
            if self._tokenizer.convert_tokens_to_ids(token) != number:
                problem = f"{token} has not the number {number} that the file gives it"
                raise ModelFileError(path, problem, FIX)
            names = [token]
            while f"{token}_{len(names)}" in known:
                names.append(f"{token}_{len(names)}")
            if len(names) > 1:
                vectors[token] = " ".join(names)
        return vectors

    def _pad_token(self) -> str:
        return self._tokenizer.pad_token or self._tokenizer.eos_token

    def encode(self, prompts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """The tokens of `prompts`, int32 [prompts, length], and the text cut off from each.

        A longer prompt keeps its first tokens and gets an end token; a shorter one is padded. An
        added token of several vectors stands for all of them, as in diffusers' pipelines.
        """
        end = self._tokenizer.eos_token_id
        pad = self._tokenizer.convert_tokens_to_ids(self._pad_token())
        input_ids = np.full((len(prompts), self.length), pad, np.int32)
        cut_off = []
        for row, prompt in zip(input_ids, prompts):
            if self._vectors:
                for token in sorted(self._vectors.keys() & set(self._tokenizer.tokenize(prompt))):
                    prompt = prompt.replace(token, self._vectors[token])
            tokens = self._tokenizer(prompt, verbose=False).input_ids
            if len(tokens) > self.length:
                cut_off.append(self._tokenizer.decode(tokens[self.length - 1 : -1]))
                tokens = [*tokens[: self.length - 1], end]
            else:
                cut_off.append("")
            row[: len(tokens)] = tokens
        return input_ids, cut_off

    def encode_settings(
        self, images: Sequence[Settings]
    ) -> tuple[np.ndarray, np.ndarray, list[Settings]]:
        """The tokens of all images' prompts and of their negative prompts, and the settings.

        Tokens are int32 [images, length]. The settings get a warning for each prompt of which a
        part was cut off.
        """
        input_ids, cut_off = self.encode([image.prompt for image in images])
        negative_ids, negative_cut_off = self.encode([image.negative_prompt for image in images])
        warned = []
        for image, *parts in zip(images, cut_off, negative_cut_off):
            warnings = [
                f"{field} is longer than {self.length} tokens; cut off: {shorten(part, 200)}"
                for field, part in zip(("prompt", "negative_prompt"), parts)
                if part
            ]
            warnings += _unread("prompt", image.prompt)
            warnings += _unread("negative_prompt", image.negative_prompt)
            warned.append(dataclasses.replace(image, warnings=(*image.warnings, *warnings)))
        return input_ids, negative_ids, warned


_UNREAD = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>|\([^()]*[^()\d\s]\s*:\s*\d*\.?\d+\s*\)")


def _unread(field: str, prompt: str) -> list[str]:
    """A warning if there is syntax of the WebUI in a prompt that is only read as words here."""
    found = [shorten(one) for one in _UNREAD.findall(prompt)[:3]]
    return [f"{field}: {', '.join(found)} is read as words: no LoRA, no weights"] if found else []
