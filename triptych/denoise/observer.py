"""Who is told of a loop's work."""

from __future__ import annotations

from collections.abc import Sequence

from triptych.denoise.denoising import Denoising


class Observer:
    """Told by a loop of its work, always from the loop's own thread; this one does nothing."""

    def queued(self, seconds: float) -> None:
        """An image has its first call now, `seconds` after it was submitted."""

    def called(self, rows: int) -> None:
        """`predict_noise` is called with that many rows."""

    def stepped(self, images: Sequence[Denoising], rows: int, begun: int) -> None:
        """These images have the answer of a call, and take a scheduler step each.

        The call had that many rows and began at `begun`, in nanoseconds as time.time_ns() has it.
        """

    def finished(self) -> None:
        """An image has its latents."""

    def in_flight(self, images: int) -> None:
        """That many images are being denoised now; told when the number changes."""
