"""A tokenizer in CLIP's format (byte-level BPE, ends of words marked) for the captions' words."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from demo.scenes import caption, random_picture
from triptych import trained_words

START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP splits words, single digits and runs of other signs (Radford et al. 2021, the released code).
SPLIT = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
OFTEN = 40
"""How often captions must have a piece, or a word, to keep it: made-up words are rarer."""


def train(folder: Path, vocab_size: int = 1000) -> None:
    """Write what CLIPTokenizer reads, four files, and words.txt, the words of the captions."""
    rng = random.Random(0)
    captions = [caption(random_picture(rng), rng) for _ in range(50_000)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPLIT, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 256,
        min_frequency=OFTEN,
        end_of_word_suffix="</w>",
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = [
        pair if isinstance(pair, str) else " ".join(pair)
        for pair in json.loads(tokenizer.to_str())["model"]["merges"]
    ]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [
        *alphabet,
        *(letter + "</w>" for letter in alphabet),
        *dict.fromkeys(m.replace(" ", "") for m in merges),
    ]
    words += [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False)
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    counts = Counter(word for text in captions for word in trained_words.words_in(text))
    known = sorted(word for word, count in counts.items() if count >= OFTEN)
    (folder / trained_words.FILE).write_text("\n".join(known) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
