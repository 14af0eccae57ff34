"""A picture drawn in this process, without a server."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from triptych.commands.settings import add_settings, given, tell_warnings
from triptych.errors import InvalidRequest, ModelFileError
from triptych.names import MODEL
from triptych.picture.metadata import read_settings

EXAMPLES = """\
example:
  triptych draw "a red circle on a blue background" -o circle.png
  triptych draw "a yellow sun" --steps 30 --seed 7 --model-repository my_repository

exit codes:
  0  the picture is written
  1  it cannot be drawn, and why
  2  the arguments make no sense
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.png"), metavar="FILE")
    parser.add_argument(
        "--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER"
    )
    parser.add_argument("--model", default=MODEL, metavar="NAME", help="(default: %(default)s)")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Write the picture; 1, with the reason, if there is none."""
    from triptych.pipeline import Pipeline  # needs ONNX Runtime

    try:
        pipeline = Pipeline(options.model_repository, model=options.model)
        (file,) = pipeline.draw(json.dumps(given(options)))
        options.output.write_bytes(file)
    except (InvalidRequest, ModelFileError, OSError) as error:
        print(f"triptych draw: {error}", file=sys.stderr)
        return 1
    print(options.output)
    tell_warnings(read_settings(file))
    return 0
