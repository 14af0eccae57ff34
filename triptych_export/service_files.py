"""What the served stages read beside the networks: tokenizer, scheduler, numbers, shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from triptych.errors import ModelFileError
from triptych.model_files import ModelFiles
from triptych.names import NETWORKS, OPTIONAL
from triptych_export import second_encoder
from triptych_export.config_edits import (
    follow_model,
    on_tensorrt,
    with_accelerator,
    with_cache_file,
    with_cpu_accelerator,
    with_input,
    with_map,
    with_one_size,
    with_parameter,
    without_description,
)
from triptych_export.errors import ExportError
from triptych_export.repository import ENGINES, Replacement
from triptych_export.scheduler_file import as_in_pipeline
from triptych_export.source import Source, read_json
from triptych_export.tokenizer_files import count_tokens, write_tokenizer

ENGINE = f"{ENGINES}.engine"
TENSORRT = ("text_encoder",)
"""Those that `tensorrt` is meant for: TensorRT 8.5 was seen to run them right at every size."""

TEXT_ENCODERS = ("text_encoder", second_encoder.STAGE)

ONE_SIZE = "tensorrt-one-size"
"""As an accelerator: vae_decoder too, which TensorRT 8.5 was seen to run right at one size."""

CPU_ENGINES = {
    "onnxruntime": ("onnxruntime", ""),
    "openvino": ("openvino", "ov_fp32"),
    "openvino-bf16": ("openvino", "ov_bf16"),
}
"""Engines and precisions for processors."""


def write_service_files(source: Source, numbers: dict, new: Replacement) -> None:
    """Tokenizer, scheduler configuration and pipeline.json for the stages that read them.

    ExportError if the server could not load them, or could not serve a prompt alone with them.
    """
    tokenizer = source.folder / "tokenizer"
    write_tokenizer(tokenizer, new.version_folder("tokenizer"))
    tokens = count_tokens(tokenizer)
    if tokens > source.vocab_size:
        raise ExportError(
            f"{tokenizer} has {tokens} tokens, the text encoder {source.vocab_size}: save them "
            "together, after the tokens were added"
        )
    saved = read_json(source.folder / "scheduler" / "scheduler_config.json")
    if source.scheduler_class is not None:
        saved["_class_name"] = source.scheduler_class
    used = as_in_pipeline(saved, source.pipeline)
    _write_json(new, "scheduler_config.json", used)
    write_numbers(numbers, new)
    try:
        ModelFiles.load(new.version_folder("tokenizer"))
    except ModelFileError as error:
        raise ExportError(f"this model cannot be served: {error}") from error


def write_numbers(numbers: dict, new: Replacement) -> None:
    """pipeline.json for the stages that read it."""
    _write_json(new, "pipeline.json", numbers)


def _write_json(new: Replacement, name: str, content: dict) -> None:
    for model in ("tokenizer", "unet_loop"):
        text = json.dumps(content, indent=2) + "\n"
        (new.version_folder(model) / name).write_text(text, encoding="utf-8")


def set_accelerators(new: Replacement, engine: str) -> None:
    """Set what runs the networks on a GPU in their configurations.

    engine: tensorrt, for those in TENSORRT, the others having onnxruntime; ONE_SIZE, which also
    names files for the engines; or onnxruntime for all. ExportError if a network has no
    configuration.
    """
    for model, config in _configs(new):
        one_size = engine == ONE_SIZE and model == "vae_decoder"
        on_engine = one_size or (engine != "onnxruntime" and model in TENSORRT)
        config = with_accelerator(config, "tensorrt" if on_engine else "onnxruntime")
        if one_size:
            config = with_one_size(config)
        if on_engine and engine == ONE_SIZE:
            config = with_cache_file(config, _engine_file(new, model))
        new.set_config(model, config)


def set_cpu_accelerators(new: Replacement, engine: str) -> None:
    """Set what runs the networks on a processor, one of CPU_ENGINES, in their configurations.

    Text encoders stay with ONNX Runtime: their inputs are whole numbers, whose range OpenVINO does
    not check. ExportError if a network has no configuration, or none with accelerators.
    """
    for model, config in _configs(new):
        wanted = CPU_ENGINES["onnxruntime" if model in TEXT_ENCODERS else engine]
        try:
            new.set_config(model, with_cpu_accelerator(config, *wanted))
        except ValueError as error:
            raise ExportError(f"{new.path(model) / 'config.pbtxt'}: {error}") from None


def _configs(new: Replacement) -> Iterator[tuple[str, str]]:
    """The networks and their configurations; ExportError for one without."""
    for model in NETWORKS:
        config = new.config(model)
        if config is not None:
            yield model, config
        elif model not in OPTIONAL:
            raise ExportError(f"{new.path(model) / 'config.pbtxt'} is missing")


def _engine_file(new: Replacement, model: str) -> Path:
    return (new.path(model) / ENGINE).resolve()


def _fit_words(new: Replacement, beside_tokens: bool) -> None:
    """Let the text encoder take weights and clip_skip beside tokens, or tokens alone.

    ExportError if they are wanted and the tokenizer's configuration is from before they were there.
    """
    tokenizer = new.config("tokenizer")
    if beside_tokens and tokenizer is not None and '"prompt_weights"' not in tokenizer:
        raise ExportError(
            f"{new.path('tokenizer') / 'config.pbtxt'} is of an earlier version, without "
            f"prompt_weights and clip_skip: remove the folders {new.path('tokenizer').name} and "
            f"{new.path('sd_ensemble').name} there, the export writes them anew"
        )
    inputs = (
        ("prompt_weights", "input_ids", "TYPE_FP32", [-1]),
        ("clip_skip", "prompt_weights", "TYPE_INT32", [1]),
    )
    for name, like, kind, dims in inputs:
        config = new.config("text_encoder")
        if config is not None:
            wanted = dims if beside_tokens else None
            new.set_config("text_encoder", with_input(config, name, like, wanted, kind))
        config = new.config("sd_ensemble")
        if config is not None:
            new.set_config("sd_ensemble", with_map(config, name, like, beside_tokens))


def fit_configs(
    source: Source, new: Replacement, with_engine: bool = False, channel: bool = False
) -> None:
    """Make the configurations hold the model's own inputs and sizes.

    with_engine: whether they also name files for TensorRT's engines. channel: whether the
    loop has a channel of its own to the UNet, unless the configuration says so or not already.
    """
    config = new.config("unet")
    if config is not None:
        width = source.time_cond_proj_dim
        config = with_input(config, "timestep_cond", "timestep", None if width is None else [width])
        more = {"mask": 1, "masked_image_latents": source.latent_channels}
        for name, channels in more.items():
            dims = [channels, -1, -1] if source.paints_in else None
            config = with_input(config, name, "sample", dims)
        new.set_config("unet", config)
    config = new.config("sd_ensemble")
    if config is not None:
        new.set_config("sd_ensemble", without_description(config))
    _fit_words(new, source.text_encoder_layers is not None)
    second_encoder.fit_configs(source, new)
    latents = (-source.latent_channels, *source.sample_size)
    picture = (-3, *(source.vae_scale_factor * side for side in source.sample_size))
    embeds = (source.text_length, -source.hidden_size)
    tokens = (source.text_length,)
    inputs = {
        "text_encoder": {"input_ids": tokens, "prompt_weights": tokens},
        "unet": {
            "sample": latents,
            "encoder_hidden_states": embeds,
            "mask": (-1, *source.sample_size),
            "masked_image_latents": latents,
        },
        "vae_decoder": {"latent_sample": latents},
        "vae_encoder": {"sample": picture},
    }
    inputs[second_encoder.STAGE] = inputs["text_encoder"]
    for model, sizes in inputs.items():
        old = new.config(model)
        if old is None:
            continue
        config = follow_model(old, sizes)
        if model == "vae_decoder" and on_tensorrt(config):
            config = with_one_size(config)
        if with_engine and model in TENSORRT:
            config = with_cache_file(config, _engine_file(new, model))
        if model == "unet" and channel:
            config = with_parameter(config, "channel", "true")
        if config != old:
            new.set_config(model, config)
