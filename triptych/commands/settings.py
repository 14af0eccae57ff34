"""A picture's settings as options of a command."""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

from triptych.settings import MAX_SEED, PICTURE_KEYS, PICTURES, Settings


def add_settings(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """An option for each setting but the prompt and the file's format; their group."""
    parser.usage = "%(prog)s PROMPT [options]; %(prog)s --help lists them"  # which fill a screen
    group = parser.add_argument_group("settings", "the server's defaults where not given")
    add = group.add_argument
    add("--negative-prompt", metavar="TEXT", help="what to keep out of the picture")
    add("--num-inference-steps", "--steps", type=_whole, metavar="N", help="denoising steps")
    add("--guidance-scale", type=_number, metavar="X", help="how closely to follow the prompt")
    add(
        "--seed",
        type=_seed,
        metavar="N",
        help="the first of several pictures', which count on, with 0 after the highest; random if "
        "not given",
    )
    add("--height", type=_whole, metavar="PIXELS", help="a multiple of 8")
    add("--width", type=_whole, metavar="PIXELS", help="a multiple of 8")
    add("--scheduler", metavar="NAME", help="ddim, pndm, euler, ... or diffusers' class name")
    add("--timestep-spacing", metavar="NAME", help="leading, linspace or trailing")
    add("--eta", type=_number, metavar="X", help="new noise of DDIM and TCD, 0 to 1")
    add("--image", type=_file, metavar="FILE", help="a PNG, JPEG or WebP to start from")
    add("--strength", type=_number, metavar="X", help="how much of it to change, 0 to 1")
    add(
        "--mask",
        type=_file,
        metavar="FILE",
        dest="mask_image",
        help="what of it to paint anew: white; black stays",
    )
    add("--mask-blur", type=_number, metavar="PIXELS", help="how far to blur the mask")
    add(
        "--padding-mask-crop",
        type=_whole,
        metavar="PIXELS",
        help="draw the masked part alone, with so much around it, at the full size",
    )
    add("--prompt-syntax", metavar="NAME", help="plain or webui: (words:1.2), BREAK, any length")
    add("--clip-skip", type=_whole, metavar="N", help="last layers of the text encoder left out")
    add(
        "--lora",
        type=_lora,
        action="append",
        metavar="NAME[:SCALE]",
        dest="loras",
        help="a LoRA of the server, -4 to 4 times (1); may be repeated",
    )
    add("--guidance-rescale", type=_number, metavar="X", help="0 to 1: keeps guidance from glare")
    add("--guidance-start", type=_number, metavar="X", help="part of the steps before guidance, 0")
    add("--guidance-stop", type=_number, metavar="X", help="part of the steps where it ends, 1")
    add("--prompt-2", metavar="TEXT", help="SDXL: what its second text encoder reads instead")
    add("--negative-prompt-2", metavar="TEXT", help="SDXL: the same of the negative prompt")
    size, place = ("HEIGHT", "WIDTH"), ("TOP", "LEFT")
    told = {"original-size": size, "crops-coords-top-left": place, "target-size": size}
    for name, pair in told.items():
        add(f"--{name}", type=_whole, nargs=2, metavar=pair, help="SDXL: told to the model, pixels")
    add("--cache-interval", type=_whole, metavar="N", help="the UNet's deep part every N steps")
    add(
        "--second-pass",
        type=_second_pass,
        metavar="WIDTHxHEIGHT",
        help="draw once more from the latents, at this larger size",
    )
    return group


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _seed(text: str) -> int:
    allowed = f"allowed: a whole number from 0 to {MAX_SEED}; without --seed a random one is drawn"
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"got {text!r}; {allowed}")
    return seed


def _lora(text: str) -> dict[str, Any]:
    """What a request says for NAME or NAME:SCALE."""
    name, _, scale = text.rpartition(":")
    try:
        return {"name": name, "scale": float(scale)} if name else {"name": text}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME or NAME:SCALE") from None


def _second_pass(text: str) -> dict[str, int]:
    """What a request says for WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return {"height": int(height), "width": int(width)}


def _file(path: str) -> str:
    """The base64 of a file that an option names."""
    try:
        return base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def tell_warnings(settings: Settings) -> None:
    """Print the warnings that a picture came with to standard error."""
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, the prompt among them, and the pictures in base64."""
    names = (*PICTURE_KEYS, *PICTURES)
    values = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}
