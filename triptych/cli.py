"""The commands beside the server and its client."""

from __future__ import annotations

import argparse
import importlib
import sys

import triptych
from triptych import interrupts

COMMANDS = {
    "draw": "a picture, drawn in this process without a server",
    "gateway": "OpenAI's images API, the WebUI's, and a page to draw on, in front of a server",
    "stages": "each stage in turn for one prompt: shapes, ranges, times, and the picture",
    "models": "the models that a server draws with; load one, unload one",
    "doctor": "what this machine has to serve with, and what is missing",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code, 2 for arguments that make no sense.

    Without `arguments` it is the command that was typed: Ctrl-C ends the process with 130, whenever
    it comes. With `arguments`, KeyboardInterrupt passes.
    """
    typed = arguments is None
    if typed:
        arguments = sys.argv[1:]
        interrupts.end_at_once()  # while the command's modules are imported
    options = parse(arguments)
    return interrupts.run(lambda: options.run(options)) if typed else options.run(options)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command's options, with `run` to call with them; SystemExit for what makes no sense."""
    parser = argparse.ArgumentParser(prog="triptych", description=__doc__)
    parser.add_argument("--version", action="version", version=triptych.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in COMMANDS.items():
        # Each has packages of its own, which only who asks for it must have.
        if name in arguments[:1]:
            module = importlib.import_module(f"triptych.commands.{name}")
            command = commands.add_parser(
                name,
                help=what,
                description=module.__doc__,
                epilog=module.EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.add_arguments(command)
            command.set_defaults(run=module.run)
        else:
            commands.add_parser(name, help=what)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
