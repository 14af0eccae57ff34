"""Take pictures of the page, drawn on by the served model: light, dark, on a phone.

    python scripts/screenshot_page.py --output docs

writes page.webp, page-dark.webp, page-phone.webp and page-drawing.webp, the last with previews. It
needs Debian's packages chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from tests.gateway import browser as chromium
from tests.gateway.page import Page
from tests.gateway.running import Gateway, wait_for
from triptych.server.running import RunningServer

DRAWN = (
    ("a green star left of a small orange heart", 3),
    ("the moon over a sea at night", 11),
    ("a red circle on a blue background", 7),
    ("a yellow sun over green hills at sunset", 5),
)
NAMES = ("page", "page-dark", "page-phone", "page-drawing")


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures; 2 where there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", type=Path, default=Path("docs"), metavar="FOLDER")
    parser.add_argument("--only", choices=NAMES, help="write this one alone")
    options = parser.parse_args(arguments)
    if chromium.missing():
        print(chromium.missing(), file=sys.stderr)
        return 2
    wanted = (options.only,) if options.only else NAMES
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = RunningServer(CHECKOUT / "model_repository", folder / "server.log")
        stack.enter_context(server)
        gateway = stack.enter_context(Gateway(server.grpc))
        browser = stack.enter_context(chromium.Browser(folder / "profile"))
        for name in NAMES:
            if name in wanted:
                browser.look_like(
                    chromium.PHONE if name == "page-phone" else chromium.WIDE, name == "page-dark"
                )
                _draw(Page(browser, gateway.url), is_done=name != "page-drawing")
                path = options.output / f"{name}.webp"
                path.write_bytes(browser.screenshot())
                print(path, flush=True)
    return 0


def _draw(page: Page, is_done: bool) -> None:
    wait_for(lambda: page["num_inference_steps"].get_property("value"))
    for prompt, seed in DRAWN:
        page.draw(prompt=prompt, seed=str(seed))
        if is_done:
            wait_for(lambda: not page.all(".coming"), 120)
    if not is_done:
        wait_for(lambda: len(page.all(".coming img:not([hidden])")) == len(DRAWN), 120)
    time.sleep(0.5)  # the last card's appearing


if __name__ == "__main__":
    sys.exit(main())
