"""Answers to requests after `execute` is over, where Triton has the means."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from triptych.stages import triton


def replies(requests: Sequence[Any]) -> list[Reply] | None:
    """For each request the means to answer it after `execute` is over.

    None on a Triton that has them only for decoupled models (before 24.06) or not at all (21.10).
    """
    try:
        return [Reply(request.get_response_sender()) for request in requests]
    except (AttributeError, pb_utils.TritonModelException):
        return None


class Reply:
    """One request's answer, given from any thread; until then, whether anybody waits for it.

    Nothing here raises: what Triton refuses is logged, since the caller's thread serves others too.
    """

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        # Once the answer is sent Triton frees the request: nobody may ask for it any more.
        self._lock = threading.Lock()
        self.sent = False

    def send(self, response: Any) -> None:
        """Answer the request; only the first answer counts.

        One that Triton does not take, for want of shared memory, is replaced by the error.
        """
        with self._lock:
            if self.sent:
                return
            self.sent = True
            error = self._try(response, final=True)
            if error is not None:
                failed = triton.triton_error(triton.public(error), "INTERNAL")
                instead = pb_utils.InferenceResponse(output_tensors=[], error=failed)
                self._try(instead, final=True)

    def send_part(self, response: Any) -> None:
        """A response before the last one, of a decoupled model; none after the last one."""
        with self._lock:
            if not self.sent:
                self._try(response, final=False)

    def _try(self, response: Any, final: bool) -> Exception | None:
        """What Triton raises at that, which is logged."""
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        try:
            self._sender.send(response, flags=flags)
        except Exception as error:
            triton.log(f"a response was not sent: {error}", error=True)
            return error
        return None

    def cancelled(self) -> bool:
        """Whether the client has given the request up, where this Triton can tell (23.10).

        Takes 0.1 ms: it asks Triton's own process.
        """
        with self._lock:
            if self.sent or not hasattr(self._sender, "is_cancelled"):
                return False
            try:
                return self._sender.is_cancelled()
            except Exception:  # it cannot be asked now; the next round asks again
                return False
