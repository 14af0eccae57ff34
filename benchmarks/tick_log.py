"""When the served loop called the UNet, with how many rows: a file beside Triton's metrics.

For a copy of a model repository whose unet_loop is to tell it; see `install`.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

_TICK = np.dtype([("time", "f8"), ("rows", "i4"), ("joined", "i4")])

CODE = """\
import sys
sys.path[:0] = [{checkout!r}]
from benchmarks import tick_log
tick_log.record({file!r})
"""


def install(repository: Path, checkout: Path, file: Path) -> None:
    """Have the copy's unet_loop write `file`."""
    model = repository / "unet_loop" / "1" / "model.py"
    code = CODE.format(checkout=str(checkout), file=str(file))
    model.write_text(code + model.read_text())


def record(file: str) -> None:
    """In the stage's process: have the loop's metrics write each tick."""
    from triptych.stages import unet_loop as loop_stage

    ticks = open(file, "ab", buffering=0)  # noqa: SIM115 open as long as the process lives

    class Recorded(loop_stage.LoopMetrics):
        joined = 0

        def queued(self, seconds: float) -> None:
            self.joined += 1
            super().queued(seconds)

        def called(self, rows: int) -> None:
            ticks.write(np.array((time.monotonic(), rows, self.joined), _TICK).tobytes())
            self.joined = 0
            super().called(rows)

    loop_stage.LoopMetrics = Recorded


def periods(file: Path, begin: float, end: float, rows: int) -> np.ndarray:
    """Seconds from one call with so many rows to the next such, within some picture."""
    ticks = np.fromfile(file, _TICK)
    ticks = ticks[(ticks["time"] >= begin) & (ticks["time"] <= end)]
    passed = np.diff(ticks["time"])
    same = (ticks["rows"][1:] == rows) & (ticks["rows"][:-1] == rows)
    return passed[same & (2 * ticks["joined"][1:] < rows)]


def called(file: Path, begin: float, end: float) -> np.ndarray:
    """Rows of each call."""
    ticks = np.fromfile(file, _TICK)
    return ticks["rows"][(ticks["time"] >= begin) & (ticks["time"] <= end)]
