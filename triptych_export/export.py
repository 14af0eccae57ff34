"""The whole export: a model in, a served repository out, or the old one left as it was."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import onnxruntime

from triptych.denoise.preview import fit_network
from triptych.model_files import ModelFiles
from triptych.names import Names
from triptych_export import check, engines, fuse_cuda, onnx_files, second_encoder
from triptych_export.check import Wanted
from triptych_export.disk import room_in
from triptych_export.errors import ExportError
from triptych_export.families import class_of
from triptych_export.picture import psnr
from triptych_export.progress import Progress
from triptych_export.repository import Replacement, replacement
from triptych_export.service_files import (
    TENSORRT,
    fit_configs,
    set_accelerators,
    set_cpu_accelerators,
    write_numbers,
    write_service_files,
)
from triptych_export.single_file import is_weights_file
from triptych_export.source import (
    is_fastdeploy_folder,
    open_source,
    pipeline_numbers,
    read_json,
    with_size,
)
from triptych_export.stages import stages

PICTURE = '{"prompt": "a red circle on a blue background", "seed": 1}'


def export(options: argparse.Namespace, template: Path, scratch: Path) -> None:
    """Export options.model into options.output and print sizes and times.

    template: the repository with configurations and code for models that the output lacks.
    ExportError leaves the output as it was, but for that of an engine, which comes last.
    """
    tensorrt = "tensorrt" in options.optimize
    if tensorrt:
        engines.require_tensorrt()
    half = None if options.precision is None else options.precision == "fp16-storage"
    wanted = Wanted(half, options.external_weights, "cuda" in options.optimize)
    with room_in(scratch.parent, "TMPDIR names a folder with room for the weights"):
        road, source = _open(options, scratch)
    if source.second_encoder is not None and tensorrt:
        raise ExportError("--optimize tensorrt: no engine of SDXL's text encoders was seen right")
    source = with_size(source, options.height, options.width)
    no_encoder = road.no_encoder(source)
    served = Names(options.name)
    names = [name for name in stages(source) if name != "vae_encoder" or not no_encoder]
    progress = Progress(len(names))
    if no_encoder:
        encoder = options.output / served.stage("vae_encoder")
        _leave_out_encoder(encoder, no_encoder, progress)
    if class_of(read_json(source.folder / "model_index.json"), "safety_checker") is not None:
        progress.say("the model's safety_checker is left out: pictures are served as they are")
    without = (second_encoder.STAGE, "vae_encoder") if no_encoder else (second_encoder.STAGE,)
    room = room_in(options.output, "the new model needs room beside the old one")
    with room, replacement(options.output, template, without, served) as new:
        numbers = pipeline_numbers(source, options.num_inference_steps, options.guidance_scale)
        if source.second_encoder is not None:
            numbers["pad_token_id_2"] = second_encoder.pad_token_id(source)
        write_service_files(source, numbers, new)
        compare = getattr(road, "compare_tokens", None)
        if compare:
            compare(source, new.version_folder("tokenizer"))
        folders = {name: new.version_folder(name) for name in names}
        if options.accelerator:
            set_accelerators(new, options.accelerator)
        if options.cpu_accelerator:
            set_cpu_accelerators(new, options.cpu_accelerator)
        fit_configs(source, new, tensorrt, channel=wanted.cuda)
        for name, folder in folders.items():
            road.export_stage(stages(source)[name], source, folder, wanted, progress)
            progress.stage_done()
        with progress.step("the colours of previews"):
            pipeline = ModelFiles(scheduler_config={}, **numbers)
            size = source.sample_size if source.fixed_size else (32, 32)
            decoder = folders["vae_decoder"] / "model.onnx"
            numbers["latent_rgb"] = fit_network(decoder, pipeline, size)
        write_numbers(numbers, new)
        compare = getattr(road, "compare_pictures", None)
        if compare:
            with progress.step("a picture by the whole pipelines"):
                error = compare(source, new)
            progress.say(f"the picture is {error:.1f} dB from the framework's pipeline's")
        if wanted.cuda:
            _compare_fused(new, progress)
        sizes = {name: onnx_files.size_on_disk(folder) for name, folder in folders.items()}
        new.commit()
    if tensorrt:
        engines.build(options.output, [served.stage(name) for name in TENSORRT], progress)
    seconds = progress.close()
    for name, size in sizes.items():
        print(f"{served.stage(name)}: {size / 1e6:.1f} MB")
    print(f"{options.output}: {sum(sizes.values()) / 1e6:.1f} MB in {seconds:.0f} s")


def _leave_out_encoder(encoder: Path, why: str, progress: Progress) -> None:
    """Say so; ExportError if `encoder` is there, that of the model that was there before."""
    if encoder.exists():
        raise ExportError(
            f"{encoder} is another model's, and this one's cannot be made ({why}): "
            "remove that folder first"
        )
    progress.say(f"vae_encoder is left out, requests that bring pictures are refused: {why}")


def _compare_fused(new: Replacement, progress: Progress) -> None:
    """Say how far a picture by the fused networks is from the plain ones', where CUDA is."""
    if check.CUDA not in onnxruntime.get_available_providers():
        return
    from triptych.pipeline import Pipeline  # needs transformers, which Paddle's environment lacks

    step = progress.step("a picture by the plain and the fused networks")
    with step, new.as_served() as repository:
        plain, fused = (
            Pipeline(repository, "1", name, check.CUDA, new.names.model).pixels(PICTURE)
            for name in ("model.onnx", fuse_cuda.NAME)
        )
    progress.say(f"the pictures agree to {psnr(fused, plain):.1f} dB")


def _open(options: argparse.Namespace, scratch: Path):
    """The module that exports this kind of model, and the model."""
    folder = Path(options.model)
    if is_fastdeploy_folder(folder):
        from triptych_export import fastdeploy_folder

        return fastdeploy_folder, fastdeploy_folder.open_fastdeploy_folder(folder)
    if options.framework == "paddle":
        from triptych_export import paddle_export as road
    else:
        from triptych_export import torch_export as road
    if is_weights_file(folder):
        folder = _from_single_file(options, scratch)
    elif not folder.is_dir():
        folder = road.fetch(options.model, scratch / "source")
    if options.framework == "diffusers":
        from triptych_export.changed_model import changed

        folder = changed(folder, options, scratch)
    source = open_source(folder)
    if source.second_encoder is not None and source.paddle:
        raise ExportError(
            f"{folder} holds SDXL's weights in Paddle's layout, which are not exported: give the "
            "model in diffusers' layout"
        )
    if options.framework == "diffusers":
        return road, source
    if source.second_encoder is not None:
        raise ExportError("SDXL is exported through PyTorch alone: leave --framework paddle out")
    return road, dataclasses.replace(source, text_encoder_layers=None)


def _from_single_file(options: argparse.Namespace, scratch: Path) -> Path:
    """The folder in diffusers' layout that a single file becomes."""
    from triptych_export.single_file_road import to_folder

    path, prediction = Path(options.model), options.prediction_type
    return to_folder(path, scratch, options.config, prediction, vae=not options.vae)
