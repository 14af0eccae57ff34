"""The words that a model was trained on, where its files say which they are."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from triptych.errors import ModelFileError

FILE = "words.txt"
"""Beside vocab.json; small letters, one word a line."""

_WORD = re.compile(r"(?:[^\W_]|(?<=\w)['\u2019](?=\w)|[\u2600-\u27bf\U0001f000-\U0001faff])+")


def words_in(text: str) -> list[str]:
    """The words, numbers and emoji of a text, in its order, in small letters, each once."""
    return list(dict.fromkeys(_WORD.findall(unicodedata.normalize("NFC", text).lower())))


def read(folder: str | Path) -> frozenset[str] | None:
    """The words in a folder's FILE, None where there is none; ModelFileError if it is damaged."""
    path = Path(folder) / FILE
    try:
        return frozenset(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        fix = "write one word a line in UTF-8, or remove the file"
        raise ModelFileError(path, f"cannot be read ({error})", fix) from error
