"""Which images of the loop are seen in a trace, and whether they can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from triptych.denoise.denoising import Denoising
from triptych.stages import triton

Done = Callable[[Any], None]


class Traces:
    """Has OpenTelemetry for the first request that is traced: without one it is not imported."""

    def __init__(self) -> None:
        self._spans: Any = None

    def follow(self, image: Denoising, context: Mapping[str, str], done: Done) -> Done:
        """`done` for an image whose request is traced: it is seen in there from now until then.

        `context`: as `triton.trace_context` gives it. The log says where OpenTelemetry is missing.
        """
        try:
            from triptych.stages import spans

            span = image.span = spans.ImageSpan(image, context)
        except ImportError as error:
            triton.log(f"the loop is in no trace ({error}): pip install 'triptych[tracing]'")
            return done
        except Exception as error:  # such as a variable of OpenTelemetry's that makes no sense
            triton.log(f"the loop is in no trace: {error!r}", error=True)
            return done
        self._spans = spans

        def ended(result: Any) -> None:
            span.end(result)
            done(result)

        return ended

    def close(self) -> None:
        """Send what is not sent yet."""
        if self._spans is not None:
            self._spans.provider.shutdown()
