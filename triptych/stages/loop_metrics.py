"""What is told of the denoising loop: its numbers on Triton's metrics page, its activity for the
launcher, and its calls in the traces of its images."""

from __future__ import annotations

import time
from collections.abc import Sequence

from triptych.denoise.denoising import Denoising
from triptych.denoise.observer import Observer
from triptych.ipc.activity import Activity
from triptych.stages.metrics import Counter, Gauge


class LoopMetrics(Observer):
    """Counters of images, steps, UNet calls, rows and waiting; a gauge of images in flight.

    Rates of counters are speeds, and quotients of two of them are means.
    """

    INTERVAL = 0.2
    """Seconds from one update of the counters to the next while the loop works: each takes time."""

    def __init__(self, labels: dict[str, str], activity: Activity) -> None:
        totals = {
            "images": "Images denoised",
            "steps": "Denoising steps taken, all images together",
            "unet_calls": "Calls of the UNet",
            "unet_rows": "Rows in calls of the UNet, two an image with guidance",
            "queue_seconds": "Seconds that images waited for their first call",
        }
        self._counters = {
            name: Counter(f"triptych_{name}_total", description, labels)
            for name, description in totals.items()
        }
        self._untold = dict.fromkeys(totals, 0.0)
        self._in_flight = Gauge("triptych_images_in_flight", "Images being denoised now", labels)
        self._told = time.monotonic()
        self._activity = activity

    def queued(self, seconds: float) -> None:
        self._untold["queue_seconds"] += seconds

    def called(self, rows: int) -> None:
        self._untold["unet_calls"] += 1
        self._untold["unet_rows"] += rows

    def stepped(self, images: Sequence[Denoising], rows: int, begun: int) -> None:
        self._untold["steps"] += len(images)
        traced = [image for image in images if image.span is not None]
        for image in traced:
            image.span.called(image, traced, len(images), rows, begun)
        if time.monotonic() > self._told + self.INTERVAL:
            self._tell()

    def finished(self) -> None:
        self._untold["images"] += 1

    def in_flight(self, images: int) -> None:
        self._activity.set(images)
        self._tell()
        self._in_flight.set(images)

    def _tell(self) -> None:
        for name, amount in self._untold.items():
            if amount:
                self._counters[name].add(amount)
                self._untold[name] = 0.0
        self._told = time.monotonic()
