"""Which of a part's files hold the weights to take: plain ones, a variant's, one file or shards."""

from __future__ import annotations

import re
from pathlib import Path

from triptych_export.errors import ExportError

VARIANTS = (None, "fp32", "fp16", "bf16", "ema", "non_ema")
"""In the order in which they are taken; any other comes after them."""

_SHARD = r"-\d{5}-of-\d{5}"
_NAME = re.compile(
    rf"(diffusion_pytorch_model|pytorch_model|model)({_SHARD})?(\.(?P<variant>[^.]+?))?({_SHARD})?"
    r"\.(?P<ending>safetensors|bin)"
)


def weight_files(folder: Path) -> tuple[str | None, bool]:
    """The variant of the weights in `folder`, as diffusers calls it, and whether in .safetensors.

    Plain weights come before variants, .safetensors before .bin (a pickle, of which only tensors
    are read). ExportError where there are no weights.
    """
    found = set()
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match:
            found.add((match["variant"], match["ending"] == "safetensors"))
    if not found:
        raise ExportError(f"{folder}: no weights, neither .safetensors nor .bin")

    def rank(kind: tuple[str | None, bool]) -> tuple:
        variant, safetensors = kind
        known = variant in VARIANTS
        return (VARIANTS.index(variant) if known else len(VARIANTS), str(variant), not safetensors)

    return min(found, key=rank)
