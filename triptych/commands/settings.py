"""A picture's settings as options of a command."""

from __future__ import annotations

import argparse
from typing import Any

from triptych.settings import PICTURE_KEYS


def add_settings(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """An option for each setting but the prompt and the file's format; their group."""
    group = parser.add_argument_group("settings", "the server's defaults where not given")
    add = group.add_argument
    add("--negative-prompt", metavar="TEXT", help="what to keep out of the picture")
    add("--num-inference-steps", "--steps", type=int, metavar="N", help="denoising steps")
    add("--guidance-scale", type=float, metavar="X", help="how closely to follow the prompt")
    add(
        "--seed",
        type=int,
        metavar="N",
        help="of several pictures the first one's; random if not given",
    )
    add("--height", type=int, metavar="PIXELS", help="a multiple of 8")
    add("--width", type=int, metavar="PIXELS", help="a multiple of 8")
    add("--scheduler", metavar="NAME", help="ddim, pndm, euler, ... or diffusers' class name")
    add("--timestep-spacing", metavar="NAME", help="leading, linspace or trailing")
    add("--eta", type=float, metavar="X", help="new noise of DDIM and TCD, 0 to 1")
    return group


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, the prompt among them."""
    values = {name: getattr(options, name, None) for name in PICTURE_KEYS}
    return {name: value for name, value in values.items() if value is not None}
