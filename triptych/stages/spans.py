"""The loop in the trace of a request: OpenTelemetry's spans of an image and of its UNet calls.

Imported for the first request that is traced, and never without one: the packages of the extra
`tracing` are needed for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.trace import Link, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from triptych import tracing
from triptych.denoise.denoising import Denoising
from triptych.stages import triton

provider = tracing.provider("triptych")


class ImageSpan:
    """The span `denoising` of an image, from its arrival in the loop to its latents.

    Below it is a span `unet` for each call that had rows of the image, with links to `denoising` of
    the other traced images in that call.
    """

    def __init__(self, image: Denoising, context: Mapping[str, str]) -> None:
        """`context`: where it belongs, as `triton.trace_context` gives it."""
        self._tracer = provider.get_tracer("triptych")
        parent = TraceContextTextMapPropagator().extract(context)
        self._span = self._tracer.start_span("denoising", parent)
        self._span.set_attribute("triptych.calls", image.calls_in_all)

    def called(
        self,
        image: Denoising,
        traced: Sequence[Denoising],
        images: int,
        rows: int,
        begun: int,
    ) -> None:
        """A call was answered that this image shared with others, `traced` ones among them.

        `images` and `rows` are how many it had in all; it began at `begun`, as time.time_ns().
        """
        others = (other.span for other in traced if other.span is not self)
        self._tracer.start_span(
            "unet",
            set_span_in_context(self._span),
            attributes={
                "triptych.call": image.calls_before + image.call + 1,
                "triptych.timestep": float(image.timestep),
                "triptych.images": images,
                "triptych.rows": rows,
            },
            links=[Link(other._span.get_span_context()) for other in others],
            start_time=begun,
        ).end()

    def end(self, result: object) -> None:
        """The image has its latents, or an exception in their place."""
        if isinstance(result, Exception):
            self._span.set_status(Status(StatusCode.ERROR, triton.public(result)))
        self._span.end()
