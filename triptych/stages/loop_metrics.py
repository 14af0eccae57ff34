"""What is told of the denoising loop: its numbers on Triton's metrics page, and its calls in the
traces of its images."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from triptych.denoise.denoising import Denoising
from triptych.denoise.observer import Observer
from triptych.stages import triton
from triptych.stages.metrics import Counter, Gauge


class LoopMetrics(Observer):
    """Counters of images, steps, UNet calls, rows and waiting; a gauge of images in flight.

    Rates of counters are speeds, and quotients of two of them are means. A thread of its own tells
    Triton: each change of a number takes 0.05 ms, for which the loop would wait.
    """

    INTERVAL = 0.2
    """Seconds from one update of the metrics page to the next, while images are in flight."""

    def __init__(self, labels: dict[str, str]) -> None:
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
        self._in_flight = Gauge("triptych_images_in_flight", "Images being denoised now", labels)
        self._lock = threading.Lock()
        self._untold = dict.fromkeys(totals, 0.0)
        self._images = 0
        self._closing = False
        self._news, self._now = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def queued(self, seconds: float) -> None:
        self._count(queue_seconds=seconds)

    def called(self, rows: int) -> None:
        self._count(unet_calls=1, unet_rows=rows)

    def stepped(self, images: Sequence[Denoising], rows: int, begun: int) -> None:
        self._count(steps=len(images))
        traced = [image for image in images if image.span is not None]
        for image in traced:
            image.span.called(image, traced, len(images), rows, begun)

    def finished(self) -> None:
        self._count(images=1)

    def in_flight(self, images: int) -> None:
        with self._lock:
            self._images = images
        self._news.set()
        if images == 0:
            self._now.set()

    def close(self) -> None:
        """Tell what is still untold, and end the thread."""
        self._closing = True
        self._now.set()
        self._news.set()
        self._thread.join()

    def _count(self, **more: float) -> None:
        with self._lock:
            for name, amount in more.items():
                self._untold[name] += amount
        self._news.set()

    def _run(self) -> None:
        while not self._closing:
            self._news.wait()
            self._news.clear()
            self._tell()
            self._now.wait(self.INTERVAL)
            self._now.clear()
        self._tell()

    def _tell(self) -> None:
        """Where Triton does not take a number now, it is told the next time."""
        with self._lock:
            images = self._images
            amounts = {name: amount for name, amount in self._untold.items() if amount}
        try:
            for name, amount in amounts.items():
                self._counters[name].add(amount)
                with self._lock:
                    self._untold[name] -= amount
            self._in_flight.set(images)
        except Exception as error:
            triton.log(f"a metric was not told: {error}", error=True)
            self._news.set()
