"""The command line: weights in, a served model repository out."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from triptych_export import onnx_files
from triptych_export.errors import ExportError
from triptych_export.progress import Progress
from triptych_export.repository import replacement
from triptych_export.service_files import fit_configs, write_service_files
from triptych_export.source import open_source, pipeline_numbers
from triptych_export.stages import stages

CHECKOUT = Path(__file__).resolve().parent.parent
SERVED = ("text_encoder", "unet", "vae_decoder")


def main(arguments: list[str] | None = None) -> int:
    """Run the export; 0 when the repository is in place, 1 after a line that says why not."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        export(options)
    except ExportError as error:
        print(f"export_stages: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export_stages: interrupted; the repository is as it was", file=sys.stderr)
        return 130
    return 0


def export(options: argparse.Namespace) -> None:
    """The whole export; ExportError leaves the repository as it was."""
    source = open_source(Path(options.model))
    wanted = [*SERVED, "vae_encoder"] if options.vae_encoder else list(SERVED)
    from triptych_export import torch_export, torch_road

    progress = Progress(torch_export.STEPS * len(wanted))
    with replacement(options.output, CHECKOUT / "model_repository") as new:
        folders = {}
        for name in wanted:
            target = name if name in SERVED else str(options.vae_encoder.resolve())
            folders[name] = new.version_folder(target)
            torch_export.export_stage(
                stages(source)[name],
                source,
                folders[name],
                options.precision == "fp16-storage",
                progress,
            )
        scaling_factor, shift_factor = torch_road.scaling(source)
        numbers = pipeline_numbers(
            source,
            scaling_factor,
            shift_factor,
            options.num_inference_steps,
            options.guidance_scale,
        )
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
        "model", help="folder with Stable Diffusion 1.x or 2.x in diffusers' layout"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=CHECKOUT / "model_repository",
        help="model repository to fill (default: the checkout's)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16-storage"),
        default="fp32",
        help="fp16-storage: weights in half precision on disk, arithmetic in single as before",
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
