"""What the repository of a model with two text encoders, SDXL's kind, has beside others'."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from triptych.errors import ModelFileError
from triptych_export.config_edits import (
    follow_model,
    parameter,
    with_accelerator,
    with_input,
    with_map,
    with_parameter,
)
from triptych_export.errors import ExportError
from triptych_export.families import SIZES
from triptych_export.repository import Replacement
from triptych_export.source import Source
from triptych_export.tokenizer_files import write_tokenizer

STAGE = "text_encoder_2"
_TOKENIZER = {"input_ids": "TYPE_INT32", "prompt_weights": "TYPE_FP32"}
_LARGEST = 1.5
"""The largest side, of the usual one: the model was trained on pictures of one area, of any shape.
"""
_ROWS = {"unet": "16", "vae_decoder": "1", "vae_encoder": "1"}
"""Rows of 1024x1024 that these run at once.

An H100 takes 15.6 ms for a row of the UNet in calls of 2, 14.3 in calls of 8, 14.1 in calls of 16.
Of eight pictures in the decoder one tensor has more elements (2**31) than ONNX Runtime counts.
"""
_ROWS_OF_A_CALL = [parameter("max_rows", rows) for rows in ("32", _ROWS["unet"])]
"""unet_loop's, for other models and for these."""
_STEP = re.compile(r'    \{\n      model_name: "[^"]*"\n(?:      .*\n)*?    \},\n')


def pad_token_id(source: Source) -> int:
    """What pads the prompts of the second text encoder.

    ExportError if its vocabulary is not the first one's, of which the server has one alone.
    """
    from triptych.tokenizer import Tokenizer  # needs transformers, which Paddle's environment lacks

    with tempfile.TemporaryDirectory() as scratch:
        folders = Path(scratch, "1"), Path(scratch, "2")
        for folder, part in zip(folders, ("tokenizer", "tokenizer_2")):
            folder.mkdir()
            write_tokenizer(source.folder / part, folder)
        merges = {(folder / "merges.txt").read_text(encoding="utf-8") for folder in folders}
        try:
            first, second = map(Tokenizer, folders)
        except ModelFileError as error:
            raise ExportError(f"this model cannot be served: {error}") from error
        same = first.vocabulary == second.vocabulary and first.length == second.length
        if len(merges) > 1 or not same:
            raise ExportError(
                f"{source.folder}: tokenizer and tokenizer_2 read words in two ways; SDXL's differ "
                "in nothing but the token that pads"
            )
        return second.pad_token_id


def fit_configs(source: Source, new: Replacement) -> None:
    """Let the stages hand on what a second text encoder takes and gives; or nothing of it.

    The second encoder's own configuration is the first one's, with `text_embeds`. ExportError where
    another model's second encoder would stay.
    """
    second = source.second_encoder
    if second is None and new.path(STAGE).exists():
        raise ExportError(
            f"{new.path(STAGE)} is another model's, and this one has no second text encoder: "
            "remove that folder first"
        )
    wanted = second is not None
    _edit(new, "tokenizer", _with_tokens, wanted)
    _edit(new, "unet_loop", _with_embeds, wanted)
    _edit(new, "unet_loop", _with_rows_of_a_call, wanted)
    _edit(new, "sd_ensemble", _with_steps, wanted, new.names.own("text_encoder"))
    _edit(new, "unet", _with_conditions, second.projection_dim if second else None)
    for stage, rows in _ROWS.items():
        _edit(new, stage, _with_rows, rows, wanted)
    if second is None:
        return
    first = new.config("text_encoder")
    if first is not None and new.config(STAGE) is None:
        config = re.sub(r'(?m)^(name: "[^"]*)"', r'\g<1>_2"', first, count=1)
        new.set_config(STAGE, with_accelerator(config, "onnxruntime"))
    _edit(new, STAGE, _with_pooled, second.projection_dim)
    for stage, name, scale in (
        ("unet", "sample", 1),
        ("vae_decoder", "latent_sample", 1),
        ("vae_encoder", "sample", source.vae_scale_factor),
    ):
        largest = tuple(int(_LARGEST * scale * max(source.sample_size)) for _ in range(2))
        channels = 3 if stage == "vae_encoder" else source.latent_channels
        _edit(new, stage, follow_model, {name: (-channels, *largest)})


def _edit(new: Replacement, stage: str, edit, *arguments) -> None:
    config = new.config(stage)
    if config is not None:
        new.set_config(stage, edit(config, *arguments))


def _with_tokens(config: str, wanted: bool) -> str:
    for name, kind in _TOKENIZER.items():
        for prefix in ("negative_", ""):
            like = prefix + name
            config = with_input(config, f"{like}_2", like, [-1] if wanted else None, kind)
    return config


def _with_embeds(config: str, wanted: bool) -> str:
    for prefix in ("negative_", ""):
        for name, dims in (("pooled_prompt_embeds", [-1]), ("prompt_embeds_2", [-1, -1])):
            dims = dims if wanted else None
            config = with_input(config, prefix + name, "negative_prompt_embeds", dims)
    return config


def _with_rows(config: str, rows: str, wanted: bool) -> str:
    if wanted:
        return with_parameter(config, "max_rows", rows)
    return config.replace(parameter("max_rows", rows), "")


def _with_rows_of_a_call(config: str, wanted: bool) -> str:
    others, own = _ROWS_OF_A_CALL
    return config.replace(others, own) if wanted else config.replace(own, others)


def _with_pooled(config: str, width: int) -> str:
    return with_input(config, "text_embeds", "last_hidden_state", [width])


def _with_conditions(config: str, pooled: int | None) -> str:
    for name, width in (("time_ids", SIZES), ("text_embeds", pooled)):
        dims = None if pooled is None else [width]
        config = with_input(config, name, "timestep", dims)
    return config


def _with_steps(config: str, wanted: bool, text_encoder: str) -> str:
    """An ensemble with the steps of the second encoder after those of the first, or without."""

    def encodes(step: str, name: str) -> bool:
        return f'model_name: "{name}"' in step

    def follow(match: re.Match) -> str:
        step = match.group(0)
        if encodes(step, f"{text_encoder}_2"):
            return ""
        return step + _second(step) if wanted and encodes(step, text_encoder) else step

    config = _STEP.sub(follow, config)
    for prefix in ("", "negative_"):
        for name in _TOKENIZER:
            like = prefix + name
            config = with_map(config, f"{like}_2", like, wanted, "output_map")
        for name in ("prompt_embeds_2", "pooled_prompt_embeds"):
            config = with_map(config, prefix + name, f"{prefix}prompt_embeds", wanted)
    return config


def _second(step: str) -> str:
    """The step of the second text encoder, out of one of the first."""
    step = re.sub(r'(model_name: "[^"]*)"', r'\g<1>_2"', step)
    step = re.sub(r'(value: "(?!\w*clip_skip)\w+)"', r'\g<1>_2"', step)
    embeds = r'( *)output_map \{ key: "last_hidden_state" value: "(\w*)prompt_embeds_2" \}\n'
    pooled = r'\1output_map { key: "text_embeds" value: "\2pooled_prompt_embeds" }\n'
    return re.sub(embeds, rf"\g<0>{pooled}", step)
