"""What the export tells its user while it works, and at the end."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager

from tqdm import tqdm


class Progress:
    """A bar with one tick a stage, and a line with its time for each step done."""

    def __init__(self, steps: int):
        self._bar = tqdm(
            total=steps,
            file=sys.stderr,
            bar_format="{desc} {bar} {n}/{total}",
            leave=False,
            disable=None,
        )
        self._start = time.monotonic()

    @contextmanager
    def step(self, what: str):
        self._bar.set_description_str(what)
        start = time.monotonic()
        yield
        self.say(f"{what}: {time.monotonic() - start:.1f} s")

    def say(self, line: str) -> None:
        """A line that stays above the bar."""
        tqdm.write(line, file=sys.stderr)

    def stage_done(self) -> None:
        self._bar.update()

    def close(self) -> float:
        """Take the bar away; the seconds since the start."""
        self._bar.close()
        return time.monotonic() - self._start
