"""The whole export: a model in, a served repository out, or the old one left as it was."""

from __future__ import annotations

import argparse
from pathlib import Path

from triptych_export import onnx_files
from triptych_export.progress import Progress
from triptych_export.repository import replacement
from triptych_export.service_files import fit_configs, write_service_files
from triptych_export.source import (
    is_fastdeploy_folder,
    open_source,
    pipeline_numbers,
    with_size,
)
from triptych_export.stages import stages

SERVED = ("text_encoder", "unet", "vae_decoder")
HALF_STORAGE = "fp16-storage"


def export(options: argparse.Namespace, template: Path, scratch: Path) -> None:
    """Export options.model into options.output and print sizes and times.

    template: the repository with configurations and code for models that the output lacks.
    ExportError leaves the output as it was.
    """
    road, source = _open(options, scratch)
    source = with_size(source, options.height, options.width)
    targets = {name: name for name in SERVED}
    if options.vae_encoder:
        targets["vae_encoder"] = str(options.vae_encoder.resolve())
    progress = Progress(len(targets))
    with replacement(options.output, template) as new:
        folders = {name: new.version_folder(target) for name, target in targets.items()}
        for name, folder in folders.items():
            half = options.precision == HALF_STORAGE
            road.export_stage(stages(source)[name], source, folder, half, progress)
            progress.stage_done()
        numbers = pipeline_numbers(source, options.num_inference_steps, options.guidance_scale)
        write_service_files(source, numbers, new)
        fit_configs(source, new)
        sizes = {name: onnx_files.size_on_disk(folder) for name, folder in folders.items()}
        new.commit()
    seconds = progress.close()
    for name, size in sizes.items():
        print(f"{name}: {size / 1e6:.1f} MB")
    print(f"{options.output}: {sum(sizes.values()) / 1e6:.1f} MB in {seconds:.0f} s")


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
    if not folder.is_dir():
        folder = road.fetch(options.model, scratch / "source")
    return road, open_source(folder)
