#!/usr/bin/env python3
"""Ask a running server for pictures and write them to files."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the checkout, if not installed

from triptych import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # while the rest is imported

try:
    from tqdm import tqdm

    from triptych.client import Client, ClientError, NotReady, Picture
    from triptych.commands.settings import add_settings, given, tell_warnings
    from triptych.names import MODEL
    from triptych.settings import OUTPUT_FORMATS, seeds
except ModuleNotFoundError as error:
    sys.exit(
        f"{error}: use .venv/bin/python, which `make setup` makes, or pip install tqdm '.[client]'"
    )

PROMPT = "a yellow sun over green hills at sunset"
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
AT_ONCE = 8

EXAMPLES = """\
example:
  python client/client.py "a red circle on a blue background" -o circle.png --seed 7

exit codes:
  0 done, 1 the server failed, 2 the request or an argument is wrong, 3 no server there,
  4 the server is not ready, 5 it is overloaded, 6 the timeout is over, 130 interrupted
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code. KeyboardInterrupt passes, with the server's work given up."""
    return draw(parse(arguments))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options, with the `paths` to write; SystemExit for what makes no sense."""
    parser = _parser()
    options = parser.parse_args(arguments)
    path = Path(options.output or f"out.{options.output_format or 'png'}")
    output_format = FORMATS.get(path.suffix.lower())
    if output_format is None:
        parser.error(f"argument -o: {path} does not end in {', '.join(FORMATS)}")
    if options.output_format not in (None, output_format):
        parser.error(f"argument -o: {path} is no name for a {options.output_format} file")
    options.output_format = output_format
    if not path.parent.is_dir():
        parser.error(f"argument -o: there is no folder {path.parent}")
    options.paths = _numbered(path, options.count)
    for path in options.paths:
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            parser.error(f"argument -o: {path} cannot be written")
    return options


def draw(options: argparse.Namespace) -> int:
    """Draw what was parsed; as `main`."""
    settings = given(options)
    prompt = settings.pop("prompt")
    try:
        # The client closes first, so that calls in flight end with an interrupt.
        count, url = options.count, options.url
        with ThreadPoolExecutor(AT_ONCE) as pool, Client(url) as client, _Bar(count) as bar:
            own_seeds = seeds(settings["seed"], count) if "seed" in settings else None

            def picture(number: int) -> Picture:
                own = {**settings, "seed": own_seeds[number]} if own_seeds else settings
                return bar.watch(client, prompt, options.timeout, {**own, "model": options.model})

            drawn = [pool.submit(picture, number) for number in range(count)]
            for path, one in zip(options.paths, drawn):
                while not one.done():  # in short naps: a signal just before one is seen after it
                    wait([one], 0.2)
                result = one.result()
                result.save(path)
                with tqdm.external_write_mode():
                    _report(path, result)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("prompt", nargs="?", default=PROMPT, help=f"what to draw (default: {PROMPT!r})")
    add("-o", "--output", metavar="FILE", help="the file to write (default: out.png)")
    add("--url", default="localhost:8001", help="the server's gRPC (default: %(default)s)")
    add("--model", default=MODEL, metavar="NAME", help="which of its models (%(default)s)")
    add("--count", type=_count, default=1, metavar="N", help="pictures, FILE-1 to FILE-N")
    add("--timeout", type=_seconds, default=300, metavar="SECONDS", help="(default: %(default)s)")
    add = add_settings(parser).add_argument
    add("--output-format", choices=OUTPUT_FORMATS, help="(default: as FILE ends)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 10000")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and a million")
    return value


def _numbered(path: Path, count: int) -> list[Path]:
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number + 1}{path.suffix}") for number in range(count)]


class _Bar:
    """A bar of the steps of all pictures, on a terminal; nothing anywhere else."""

    def __init__(self, pictures: int) -> None:
        self._pictures = pictures
        self._lock = threading.Lock()
        self._tqdm = tqdm(unit="step", leave=False, disable=None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()

    def watch(self, client: Client, prompt: str, timeout: float, settings: dict) -> Picture:
        """The picture, shown while it is being made where that can be seen."""
        if self._tqdm.disable:
            return client.generate(prompt, timeout, **settings)
        try:
            before = 0
            for told in client.stream(prompt, timeout, preview_every=0, **settings):
                if isinstance(told, Picture):
                    return told
                with self._lock:
                    self._tqdm.total = told.total * self._pictures
                    self._tqdm.update(told.step - before)
                before = told.step
        except NotReady:  # a server with the ensemble alone
            return client.generate(prompt, timeout, **settings)


def _report(path: Path, picture: Picture) -> None:
    settings = picture.settings
    drawn = settings.second_pass or settings
    size = f"{drawn.width}x{drawn.height}"
    print(f"{path}: {size}, seed {settings.seed}, {picture.seconds:.2f} s", flush=True)
    tell_warnings(settings)


if __name__ == "__main__":
    sys.exit(interrupts.run(main))
