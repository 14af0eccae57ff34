"""Tokens of any number in the chunks that CLIP's text encoder takes, as the WebUI cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import List, NamedTuple, Tuple

LOOKS_BACK = 20
"""Tokens at the end of a full chunk among which a comma is looked for: what follows it goes on."""


class Chunk(NamedTuple):
    """One call of the text encoder: its tokens, start, end and padding included, and weights."""

    tokens: list[int]
    weights: list[float]


Words = List[Tuple[List[List[int]], float]]
"""Texts of one weight, each as words; a word is the tokens that must stay in one chunk."""


def chunks_of(
    parts: Sequence[Words], length: int, start: int, end: int, pad: int, comma: int
) -> list[Chunk]:
    """The chunks of `length` tokens for the parts of a prompt; each part begins a new chunk.

    `start`, `end`, `pad` and `comma` are tokens. A full chunk with a comma among its last
    `LOOKS_BACK` tokens is cut after it. There is at least one chunk.
    """
    chunks: list[Chunk] = []
    room = length - 2
    for part in parts:
        tokens: list[int] = []
        weights: list[float] = []
        comma_at = None

        def close(count: int, tokens: list[int] = tokens, weights: list[float] = weights) -> None:
            padding = room - count
            chunks.append(
                Chunk(
                    [start, *tokens[:count], end, *[pad] * padding],
                    [1.0, *weights[:count], *[1.0] * (padding + 1)],
                )
            )
            del tokens[:count], weights[:count]

        for words, weight in part:
            for word in words:
                if tokens and len(tokens) + len(word) > room:
                    at_comma = comma_at is not None and room - comma_at <= LOOKS_BACK
                    if at_comma and len(tokens) == room and word != [comma]:
                        close(comma_at + 1)
                    if len(tokens) + len(word) > room:
                        close(len(tokens))
                    comma_at = None
                if word == [comma]:
                    comma_at = len(tokens)
                tokens += word[:room]
                weights += [weight] * len(word[:room])
        close(len(tokens))
    return chunks
