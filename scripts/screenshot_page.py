"""Take pictures of the page, drawn on by the served model.

    python scripts/screenshot_page.py --output docs

writes page-start.webp, the first screen; page.webp, with pictures; page-drawing.webp, at work and
dark; page-phone.webp. It needs Debian's packages chromium and chromium-driver.
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
    ("a green star left of a small orange heart", "3", 1),
    ("the moon over a sea at night", "11", 3),
    ("a yellow sun over green hills at sunset", "5", 3),
)
_FILL = """
for (const [id, value] of Object.entries(arguments[0])) document.getElementById(id).value = value;
"""


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures; 2 where there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", type=Path, default=Path("docs"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    if chromium.missing():
        print(chromium.missing(), file=sys.stderr)
        return 2
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = RunningServer(CHECKOUT / "model_repository", folder / "server.log")
        stack.enter_context(server)
        gateway = stack.enter_context(Gateway(server.grpc))
        browser = stack.enter_context(chromium.Browser(folder / "profile"))
        browser.look_like()
        page = Page(browser, gateway.url, sees_all=False)
        _write(page, options.output / "page-start.webp")
        for prompt, seed, count in DRAWN:
            _ask(page, prompt, seed, count)
            wait_for(lambda: not page.all(".coming"), 300)
        _write(page, options.output / "page.webp")
        browser.look_like(chromium.PHONE)
        _write(page, options.output / "page-phone.webp")
        browser.look_like(dark=True)
        _ask(page, "a red sun over a purple sea at sunrise", "2", 3)
        wait_for(lambda: len(page.all(".coming .preview:not([hidden])")) == 3, 300)
        _write(page, options.output / "page-drawing.webp")
    return 0


def _ask(page: Page, prompt: str, seed: str, count: int) -> None:
    """Draw without unfolding the form."""
    page.browser.execute_script(_FILL, {"prompt": prompt, "seed": seed, "count": count})
    page["draw"].click()


def _write(page: Page, path: Path) -> None:
    page.browser.execute_script("scrollTo(0, 0); document.activeElement.blur()")
    time.sleep(1)  # what fades in
    path.write_bytes(page.browser.screenshot())
    print(path, flush=True)


if __name__ == "__main__":
    sys.exit(main())
