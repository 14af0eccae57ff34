"""The command line: weights in, a served model repository out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from triptych import interrupts
from triptych.errors import InvalidRequest
from triptych.names import MODEL, Names, check_name
from triptych_export import paddle_env
from triptych_export.errors import HAS_LIBRARIES, ExportError
from triptych_export.held import held
from triptych_export.repository import replacement
from triptych_export.service_files import (
    CPU_ENGINES,
    ONE_SIZE,
    set_accelerators,
    set_cpu_accelerators,
)
from triptych_export.single_file import is_weights_file, refuse_at_sight
from triptych_export.source import is_fastdeploy_folder

CHECKOUT = Path(__file__).resolve().parent.parent

CHANGES = (
    "vae",
    "tiny_decoder",
    "embedding",
    "lora",
    "prediction_type",
    "rescale_betas_zero_snr",
    "config",
)
"""Options that make another model of what the files hold."""


def main(arguments: list[str] | None = None) -> int:
    """Run the export; 0 when the repository is in place, 1 after a line that says why not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.model is None and not (options.accelerator or options.cpu_accelerator):
        parser.error(
            "MODEL is missing; without it --accelerator and --cpu-accelerator alone can be changed"
        )
    changes = [name for name in CHANGES if getattr(options, name)]
    if changes and (options.model is None or _needs_paddle(options)):
        parser.error(f"--{changes[0].replace('_', '-')} needs weights that diffusers reads")
    single = options.model is not None and is_weights_file(Path(options.model))
    if single and options.framework == "paddle":
        parser.error("--framework paddle reads no single file: leave it out")
    if "tensorrt" in options.optimize:
        if options.accelerator == "onnxruntime":
            parser.error("--optimize tensorrt builds nothing for --accelerator onnxruntime")
        options.accelerator = options.accelerator or "tensorrt"
    try:
        check_name(options.name)
    except InvalidRequest as error:
        parser.error(f"--{error}")
    with interrupts.handled_by(lambda signum, _: sys.exit(128 + signum), *_ENDS):
        return _run(options, single, arguments or sys.argv[1:])


_ENDS = (signal.SIGTERM, signal.SIGHUP)


def _run(options: argparse.Namespace, single: bool, arguments: list[str]) -> int:
    try:
        if options.model is None:
            return _change_accelerators(options)
        if _needs_paddle(options) and not paddle_env.is_current():
            interpreter = paddle_env.python()
            script = CHECKOUT / "scripts" / "export_stages.py"
            os.execv(interpreter, [str(interpreter), str(script), *arguments])
        if single:
            refuse_at_sight(Path(options.model), vae=not options.vae)
        for library in ("DIFFUSERS", "TRANSFORMERS"):  # they warn of what is no matter here
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
        from triptych_export.export import export

        with held(options.output), tempfile.TemporaryDirectory() as scratch:
            export(options, CHECKOUT / "model_repository", Path(scratch))
    except ExportError as error:
        print(f"export_stages: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export_stages: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"export_stages: {error}: {HAS_LIBRARIES}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        state = f"; {interrupt}" if interrupt.args else ""
        print(f"export_stages: interrupted{state}", file=sys.stderr)
        return 130
    return 0


def _change_accelerators(options: argparse.Namespace) -> int:
    if not options.output.is_dir():
        raise ExportError(f"{options.output} is no model repository")
    names = Names(options.name)
    with held(options.output), replacement(options.output, names=names) as new:
        if options.accelerator:
            set_accelerators(new, options.accelerator)
        if options.cpu_accelerator:
            set_cpu_accelerators(new, options.cpu_accelerator)
        new.commit()
    whose = {"tensorrt": "text encoder", ONE_SIZE: "text encoder and vae_decoder"}
    if options.accelerator:
        which = whose.get(options.accelerator, "networks")
        print(f"{options.output}: {options.accelerator} runs its {which} on a GPU")
    if options.cpu_accelerator:
        which = "networks" if options.cpu_accelerator == "onnxruntime" else "UNet and VAE"
        print(f"{options.output}: {options.cpu_accelerator} runs its {which} on a processor")
    return 0


def _needs_paddle(options: argparse.Namespace) -> bool:
    return options.framework == "paddle" or is_fastdeploy_folder(Path(options.model))


def _lora(text: str) -> tuple[Path, float]:
    """A file and a scale out of FILE:SCALE, or FILE alone."""
    file, _, scale = text.rpartition(":")
    try:
        return (Path(file), float(scale)) if file else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="export_stages.py", description=__doc__)
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="Stable Diffusion 1.x, 2.x or XL: a single file (.safetensors, .ckpt), a folder in "
        "the layout of diffusers, a name that its hub knows; 1.x or 2.x in the layout of "
        "ppdiffusers too, or a folder exported for FastDeploy; without it, --accelerator and "
        "--cpu-accelerator are changed in the repository as it is",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=CHECKOUT / "model_repository",
        help="model repository to fill (default: the checkout's)",
    )
    parser.add_argument(
        "--name",
        default=MODEL,
        help="another model beside those in the repository, served under this name, its stages as "
        "NAME.unet and so on (default: %(default)s, whose stages have plain names)",
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
        help="of the ONNX weights on disk; arithmetic is in single precision with either (default: "
        "fp32 for a network whose weights fit one file of 2 GB, fp16-storage for others)",
    )
    parser.add_argument(
        "--external-weights",
        action="store_true",
        help="put weights that do not fit one file of 2 GB into model.onnx.data, which FastDeploy "
        "itself cannot load; without this, they are refused",
    )
    parser.add_argument(
        "--accelerator",
        choices=("tensorrt", ONE_SIZE, "onnxruntime"),
        help="what runs the networks on a GPU, written into their config.pbtxt: tensorrt for the "
        f"text encoder and ONNX Runtime for the others; {ONE_SIZE} for vae_decoder too, at the "
        "model's own size; or onnxruntime for all (default: as it is there; tensorrt in a new "
        "repository). FastDeploy needs onnxruntime where there is no GPU",
    )
    parser.add_argument(
        "--cpu-accelerator",
        choices=tuple(CPU_ENGINES),
        help="what runs the UNet and the VAE where there is no GPU, written into their "
        "config.pbtxt: onnxruntime, openvino, or openvino-bf16, which computes in bfloat16 "
        "(default: as it is there; onnxruntime in a new repository)",
    )
    parser.add_argument(
        "--optimize",
        nargs="+",
        choices=("cuda", "tensorrt"),
        default=(),
        help="cuda: write the form that ONNX Runtime fuses for NVIDIA GPUs too; tensorrt: build "
        "the text encoder's TensorRT engine now, on the machine that will serve",
    )
    change = parser.add_argument_group("another model than the files hold (with diffusers alone)")
    change.add_argument(
        "--vae",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="the VAE in the place of the model's",
    )
    change.add_argument(
        "--tiny-decoder",
        type=Path,
        metavar="FOLDER",
        help="an AutoencoderTiny of diffusers (TAESD), whose decoder makes the pictures in the "
        "place of the VAE's, sooner and less exactly; those that requests bring stay the VAE's",
    )
    change.add_argument(
        "--embedding",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="textual inversion (.safetensors, .pt, .bin): the file's name, without its ending, "
        "becomes a word of prompts",
    )
    change.add_argument(
        "--lora",
        type=_lora,
        nargs="+",
        default=(),
        metavar="FILE:SCALE",
        help="a LoRA (.safetensors) that is added to the weights, times its scale (default 1)",
    )
    change.add_argument(
        "--prediction-type",
        choices=("epsilon", "v_prediction"),
        help="what the UNet was trained to predict, where the files do not say it",
    )
    change.add_argument(
        "--rescale-betas-zero-snr",
        action="store_true",
        help="for a model that was trained with zero terminal SNR, where the files do not say it",
    )
    change.add_argument(
        "--config",
        type=Path,
        metavar="FOLDER",
        help="for a single file of other sizes: a folder in diffusers' layout with the "
        "configurations and the tokenizer that it lacks",
    )
    parser.add_argument("--height", type=int, help="usual height in pixels, instead of the model's")
    parser.add_argument("--width", type=int, help="usual width in pixels, instead of the model's")
    parser.add_argument(
        "--num-inference-steps", type=int, help="default of the service for this model"
    )
    parser.add_argument(
        "--guidance-scale", type=float, help="default of the service for this model"
    )
    return parser
