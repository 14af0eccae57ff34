"""CLIP's tokens for a prompt, as diffusers takes them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import List, Tuple

import numpy as np

from triptych import sdxl, trained_words, webui_prompt
from triptych.chunks import Chunk, chunks_of
from triptych.errors import InvalidRequest, ModelFileError, shorten
from triptych.limits import WIDEST, Limits
from triptych.model_files import ModelFiles
from triptych.settings import Settings
from triptych.unread import warnings_of

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
    there are 77. `words.txt`, of a model that was trained on few words, says which they are.
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
        self._trained = trained_words.read(folder)
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

    def _knows(self, token: str) -> bool:
        """Whether a text is a token of its own."""
        return token in self._tokenizer.get_added_vocab()

    def _pad_token(self) -> str:
        return self._tokenizer.pad_token or self._tokenizer.eos_token

    @property
    def pad_token_id(self) -> int:
        """The token that pads a prompt."""
        return self._tokenizer.convert_tokens_to_ids(self._pad_token())

    @property
    def vocabulary(self) -> dict[str, int]:
        """All tokens, added ones too."""
        return self._tokenizer.get_vocab()

    def encode(
        self, prompts: Sequence[str], pad: int | None = None
    ) -> tuple[np.ndarray, list[str]]:
        """The tokens of `prompts`, int32 [prompts, length], and the text cut off from each.

        A longer prompt keeps its first tokens and gets an end token; a shorter one is padded, with
        `pad` where another token than the tokenizer's own is meant. An
        added token of several vectors stands for all of them, as in diffusers' pipelines.
        """
        end = self._tokenizer.eos_token_id
        pad = self.pad_token_id if pad is None else pad
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
        self, images: Sequence[Settings], model_files: ModelFiles, limits: Limits = WIDEST
    ) -> tuple[dict[str, np.ndarray], list[Settings]]:
        """What the text encoder takes for the images' prompts, and the settings with warnings.

        `input_ids` and `negative_input_ids`, int32, and `prompt_weights` and
        `negative_prompt_weights`, float32, are [images, chunks * length]; `clip_skip` and
        `negative_clip_skip`, int32, are [images, 1]: as in diffusers, `plain` negative prompts
        leave no layers out. For SDXL `input_ids_2`, `prompt_weights_2` and the negative ones are
        what the second text encoder takes, and where zeros stand for an empty negative prompt its
        weights are all 0.

        With the syntax `plain` there is one chunk, all weights are 1, and a warning says what was
        cut off; with `webui` there are as many as the longer of the two prompts needs.
        InvalidRequest for images of different lengths, for more chunks than `limits` has, and for
        what this text encoder or this syntax cannot do.
        """
        rows, warned, with_loras = [], [], []
        for at, image in enumerate(images):
            if webui_prompt.loras_of(image):
                with_loras.append(at)
            sdxl.refuse(image, model_files)
            read, warnings = self._read(image, model_files)
            takes_negative = model_files.time_cond_proj_dim is None
            warnings += warnings_of(image, takes_negative, self._knows, self._trained)
            _check(image, read, model_files.text_encoder_layers, limits.max_prompt_chunks)
            rows.append(read)
            warned.append(dataclasses.replace(image, warnings=(*image.warnings, *warnings)))
        counts = {len(chunks) for row in rows for _, chunks in row}
        if len(counts) > 1:
            found = f"{sorted(counts)} chunks of tokens"
            raise InvalidRequest("prompt", found, "prompts of one length a batch")
        tensors = {}
        silent = [sdxl.zeros_for_negative(image, model_files) for image in images]
        for at, (ids, weights) in enumerate(_TENSORS[: 4 if model_files.is_sdxl else 2]):
            chunks = [row[at][1] for row in rows]
            tensors[ids] = np.array(
                [[n for c in row for n in c.tokens] for row in chunks], np.int32
            )
            tensors[weights] = np.array(
                [[w for c in row for w in c.weights] for row in chunks], np.float32
            )
            if weights.startswith("negative"):
                tensors[weights][silent] = 0
        skips = [image.clip_skip or 0 for image in images]
        both = [image.prompt_syntax == "webui" for image in images]
        tensors["clip_skip"] = np.array(skips, np.int32).reshape(-1, 1)
        tensors["negative_clip_skip"] = tensors["clip_skip"] * np.array(both).reshape(-1, 1)
        for at in with_loras:
            own = {name: tensor[at].tolist() for name, tensor in tensors.items()}
            warned[at] = dataclasses.replace(warned[at], text_inputs=own)
        return tensors, warned

    def _read(self, image: Settings, model_files: ModelFiles) -> tuple[Read, list[str]]:
        """The chunks of an image's prompt and negative prompt, equally many, and warnings.

        For SDXL those for the second text encoder follow: of `prompt_2` and `negative_prompt_2`,
        or where they are empty of the same two prompts, as in diffusers.
        """
        prompts, pads = image.prompts(), [self.pad_token_id]
        if model_files.is_sdxl:
            pads.append(model_files.pad_token_id_2)
        fields = ["prompt", "negative_prompt"]
        second = [f"{name}_2" if prompts.get(f"{name}_2") else name for name in fields]
        asked = [*zip(fields, pads[:1] * 2), *zip(second, pads[1:] * 2)]
        if image.prompt_syntax == "webui":
            prompts["prompt"] = webui_prompt.without_loras(image.prompt)
            read = [(field, self._chunks(field, prompts[field], pad), pad) for field, pad in asked]
            most = max(len(chunks) for _, chunks, _ in read)
            for _, chunks, pad in read:
                chunks += self._chunks("prompt", "", pad) * (most - len(chunks))
            return [(field, chunks) for field, chunks, _ in read], []
        read, warnings = [], {}
        for field, pad in asked:
            (tokens,), (part,) = self.encode([prompts[field]], pad)
            read.append((field, [Chunk(tokens.tolist(), [1.0] * self.length)]))
            if part:
                says = f"{field} is longer than {self.length} tokens; cut off: "
                warnings[field] = says + shorten(part, 200)
        return read, list(warnings.values())

    def _chunks(self, field: str, prompt: str, pad: int) -> list[Chunk]:
        """The chunks of a prompt in the WebUI's syntax."""
        end = self._tokenizer.eos_token_id
        parts = [
            [(self._words(text), weight) for text, weight in part]
            for part in webui_prompt.parse(field, prompt)
        ]
        return chunks_of(
            parts,
            self.length,
            start=self._tokenizer.bos_token_id,
            end=end,
            pad=pad,
            comma=self._tokenizer.convert_tokens_to_ids(",</w>"),
        )

    def _words(self, text: str) -> list[list[int]]:
        """The tokens of a text, those of an added token of several vectors together."""
        if not self._vectors:
            ids = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            return [[number] for number in ids]
        words = []
        for token in self._tokenizer.tokenize(text):
            names = self._vectors.get(token, token).split(" ")
            words.append(self._tokenizer.convert_tokens_to_ids(names))
        return words


Read = List[Tuple[str, List[Chunk]]]
"""The chunks of several prompts, each with the name of the setting that it is from."""

_TENSORS = tuple(
    (f"{prefix}input_ids{suffix}", f"{prefix}prompt_weights{suffix}")
    for suffix in ("", "_2")
    for prefix in ("", "negative_")
)


def _check(image: Settings, read: Read, layers: int | None, most: int) -> None:
    """InvalidRequest for more chunks than `most`, and for what the text encoder cannot do.

    layers: of the text encoder; None for one that takes tokens and nothing else.
    """
    skipped = image.clip_skip or 0
    for field, chunks in read:
        if len(chunks) > most:
            longer = max((name for name, _ in read), key=lambda name: len(getattr(image, name)))
            allowed = f"at most {most} chunks of tokens; together the prompts need {len(chunks)}"
            raise InvalidRequest(longer, getattr(image, longer), allowed)
        weighed = any(weight != 1 for chunk in chunks for weight in chunk.weights)
        if layers is None and (weighed or len(chunks) > 1):
            allowed = f"words without weights, of one chunk of tokens: {TOKENS_ALONE}"
            raise InvalidRequest(field, getattr(image, field), allowed)
    if layers is None and skipped:
        raise InvalidRequest("clip_skip", skipped, f"0: {TOKENS_ALONE}")
    if layers is not None and skipped >= layers:
        allowed = f"an integer from 0 to {layers - 1}: the text encoder has {layers} layers"
        raise InvalidRequest("clip_skip", skipped, allowed)


TOKENS_ALONE = "this model's text encoder, exported through Paddle, takes tokens alone"
