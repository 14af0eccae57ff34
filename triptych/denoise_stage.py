"""The model unet_loop between Triton and the denoising loop: requests to images, and back."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from triptych import triton
from triptych.denoising import Denoising
from triptych.errors import InvalidRequest
from triptych.loop import DenoisingLoop, Observer
from triptych.pipeline import Pipeline
from triptych.settings import Settings


class DenoiseStage:
    """Hands each request's images to the loop and answers it when the last of them is done."""

    def __init__(self, model: triton.Model) -> None:
        self._model = model
        self._pipeline = Pipeline.load(model.folder)
        max_rows = int(model.parameters["max_rows"])
        self._loop = DenoisingLoop(predict_noise, max_rows, Metrics({"model": model.name}))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """What Triton's `execute` returns: None for requests that the loop's thread will answer.

        Without response senders, the responses: the loop then runs to the end of all of them.
        """
        senders = triton.senders(requests)
        if senders is None:
            return self._answer_all(requests)
        for request, sender in zip(requests, senders):
            self._start(request, sender)
        return [None] * len(requests)

    def close(self) -> None:
        """Answer what is still in flight with an error, and end the loop's thread."""
        self._loop.close()

    def _start(self, request: Any, sender: Any) -> None:
        def answer(latents: list[np.ndarray] | Exception) -> None:
            triton.send(sender, self._response(latents))

        try:
            images = self._images(request)
            results = Results(len(images), answer)
            for position, image in enumerate(images):
                # One that failed takes the others of its request with it.
                self._loop.submit(
                    image,
                    results.of(position),
                    lambda: results.answered or triton.cancelled(sender),
                )
        except Exception as error:
            answer(error)

    def _answer_all(self, requests: Sequence[Any]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        images: list[Denoising] = []
        owners: list[Callable] = []
        for position, request in enumerate(requests):
            try:
                own = self._images(request)
            except Exception as error:
                answers[position] = error
                continue
            results = Results(len(own), functools.partial(answers.__setitem__, position))
            images += own
            owners += map(results.of, range(len(own)))
        for done, latents in zip(owners, self._loop.run_to_end(images)):
            done(latents)
        return [self._response(latents) for latents in answers]

    def _images(self, request: Any) -> list[Denoising]:
        """The request's images, one a batch element, all of one size."""
        tensors = self._model.inputs(request)
        settings = [Settings.from_json(text) for text in tensors["settings"][:, 0]]
        sizes = {(one.height, one.width) for one in settings}
        if len(sizes) > 1:
            raise InvalidRequest("settings", str(sorted(sizes)), "one height and width a batch")
        prompts, negatives = tensors["prompt_embeds"], tensors["negative_prompt_embeds"]
        return [
            Denoising(one, prompts[row], negatives[row], self._pipeline)
            for row, one in enumerate(settings)
        ]

    def _response(self, latents: list[np.ndarray] | Exception) -> Any:
        if isinstance(latents, Exception):
            return self._model.response(latents)
        return self._model.response({"latents": np.stack(latents)})


class Metrics(Observer):
    """The loop's work on Triton's metrics page. Means are quotients of two totals' rates."""

    def __init__(self, labels: dict[str, str]) -> None:
        def counter(name: str, description: str) -> triton.Counter:
            return triton.Counter(f"triptych_{name}_total", description, labels)

        self._images = counter("images", "Images denoised")
        self._steps = counter("steps", "Denoising steps taken, all images together")
        self._calls = counter("unet_calls", "Calls of the UNet")
        self._rows = counter("unet_rows", "Rows in calls of the UNet, two an image with guidance")
        self._queued = counter("queue_seconds", "Seconds that images waited for their first call")
        self._in_flight = triton.Gauge(
            "triptych_images_in_flight", "Images being denoised now", labels
        )

    def queued(self, seconds: float) -> None:
        self._queued.add(seconds)

    def called(self, rows: int) -> None:
        self._calls.add(1)
        self._rows.add(rows)

    def stepped(self, images: int) -> None:
        self._steps.add(images)

    def finished(self) -> None:
        self._images.add(1)

    def in_flight(self, images: int) -> None:
        self._in_flight.set(images)


class Results:
    """What the loop gives for the images of one request, until `answer` can be called, once.

    `answer` gets the latents in the images' order, or the first exception.
    """

    def __init__(self, images: int, answer: Callable[[Any], None]) -> None:
        self._latents: list[Any] = [None] * images
        self._left = images
        self._answer = answer
        self._lock = threading.Lock()
        self.answered = False

    def of(self, position: int) -> Callable[[np.ndarray | Exception], None]:
        """The loop's `done` for the image at `position`."""

        def done(result: np.ndarray | Exception) -> None:
            with self._lock:
                self._left -= 1
                failed = isinstance(result, Exception)
                if not failed:
                    self._latents[position] = result
                if self.answered or not (failed or self._left == 0):
                    return
                self.answered = True
            self._answer(result if failed else self._latents)

        return done


def predict_noise(
    sample: np.ndarray, timestep: np.ndarray, encoder_hidden_states: np.ndarray
) -> np.ndarray:
    """The loop's `predict_noise`: one call of the served model `unet`."""
    inputs = {
        "sample": sample,
        "timestep": timestep[:, np.newaxis],
        "encoder_hidden_states": encoder_hidden_states,
    }
    return triton.call("unet", inputs, "out_sample")
