"""The command line: weights in, a served model repository out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from triptych_export import paddle_env
from triptych_export.errors import ExportError
from triptych_export.progress import Progress
from triptych_export.repository import replacement
from triptych_export.service_files import fit_configs, write_service_files
from triptych_export.source import open_source, pipeline_numbers

CHECKOUT = Path(__file__).resolve().parent.parent
SERVED = ("text_encoder", "unet", "vae_decoder")


def main(arguments: list[str] | None = None) -> int:
    """Run the export; 0 when the repository is in place, 1 after a line that says why not."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.framework == "paddle" and not paddle_env.is_current():
            interpreter = paddle_env.python()
            script = CHECKOUT / "scripts" / "export_stages.py"
            os.execv(interpreter, [str(interpreter), str(script), *(arguments or sys.argv[1:])])
        with tempfile.TemporaryDirectory() as scratch:
            export(options, Path(scratch))
    except ExportError as error:
        print(f"export_stages: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export_stages: interrupted; the repository is as it was", file=sys.stderr)
        return 130
    return 0


def export(options: argparse.Namespace, scratch: Path) -> None:
    """The whole export; ExportError leaves the repository as it was."""
    if options.framework == "paddle":
        from triptych_export import paddle_export as road
    else:
        from triptych_export import torch_export as road
    from triptych_export import onnx_files
    from triptych_export.stages import stages

    folder = Path(options.model)
    if not folder.is_dir():
        folder = road.fetch(options.model, scratch / "source")
    source = open_source(folder)
    wanted = [*SERVED, "vae_encoder"] if options.vae_encoder else list(SERVED)
    progress = Progress(len(wanted))
    with replacement(options.output, CHECKOUT / "model_repository") as new:
        folders = {}
        for name in wanted:
            target = name if name in SERVED else str(options.vae_encoder.resolve())
            folders[name] = new.version_folder(target)
            half = options.precision == "fp16-storage"
            road.export_stage(stages(source)[name], source, folders[name], half, progress)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="export_stages.py", description=__doc__)
    parser.add_argument(
        "model",
        help="Stable Diffusion 1.x or 2.x: a folder in the layout of diffusers or ppdiffusers, "
        "or a name that their hubs know",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=CHECKOUT / "model_repository",
        help="model repository to fill (default: the checkout's)",
    )
    parser.add_argument(
        "--framework",
        choices=("diffusers", "paddle"),
        default="diffusers",
        help="what loads and traces the weights; paddle (in an environment of its own, made on "
        "first use) writes native Paddle files beside the ONNX ones",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16-storage"),
        default="fp32",
        help="fp16-storage: ONNX weights in half precision on disk, arithmetic in single as before",
    )
    parser.add_argument(
        "--vae-encoder",
        type=Path,
        metavar="DIR",
        help="export the VAE's encoder too, to DIR/1 (no served stage needs it yet)",
    )
    parser.add_argument(
        "--num-inference-steps", type=int, help="default of the service for this model"
    )
    parser.add_argument(
        "--guidance-scale", type=float, help="default of the service for this model"
    )
    return parser
