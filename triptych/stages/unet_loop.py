"""The model unet_loop between Triton and the denoising loop: requests to images, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from triptych.denoise import conditioning
from triptych.denoise.cohorts import Cohorts
from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.observer import Observer
from triptych.denoise.preview import Preview
from triptych.errors import InvalidRequest, Unavailable
from triptych.ipc import progress
from triptych.model_files import ModelFiles
from triptych.settings import Settings
from triptych.stages import triton
from triptych.stages.admission import check_room
from triptych.stages.limits import limits
from triptych.stages.loop_metrics import LoopMetrics
from triptych.stages.reply import Reply, replies
from triptych.stages.served_unet import ServedUNet


class LoopStage:
    """Hands each request's images to the loop and answers it when the last of them is done."""

    def __init__(self, model: triton.Model) -> None:
        triton.check_reach(model, "unet")
        self._model = model
        self._model_files = ModelFiles.load(model.folder)
        self._limits = limits(model, self._model_files)
        self._preview = Preview(self._model_files) if self._model_files.latent_rgb else None
        self._max_queue = model.count("max_queue", 64)
        model.activity.limit(self._max_queue)
        metrics = LoopMetrics({"model": model.name}, model.activity)
        rows, cohorts = model.count("max_rows", 32), model.count("cohorts", 1)
        numbers = itertools.count()

        def loop(observer: Observer) -> DenoisingLoop:
            return DenoisingLoop(ServedUNet(next(numbers)), rows, observer)

        self._loop = loop(metrics) if cohorts == 1 else Cohorts(cohorts, loop, metrics)
        self._cancellations = Cancellations(model)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """What Triton's `execute` returns: None for requests that the loop's thread will answer.

        On a Triton that wants the responses now, the loop runs to the end of all of them.
        """
        awaited = replies(requests)
        if awaited is None:
            return self._answer_all(requests)
        for request, reply in zip(requests, awaited):
            self._start(request, reply)
        return [None] * len(requests)

    def close(self) -> None:
        """Answer what is still in flight with an error, and end the threads."""
        self._loop.close()
        self._cancellations.close()

    def _start(self, request: Any, reply: Reply) -> None:
        writer: progress.Writer | None = None

        def answer(latents: list[np.ndarray] | Exception) -> None:
            self._tell_end(count, latents)
            try:
                reply.send(self._response(latents))
            finally:
                if writer is not None:
                    writer.close()

        def given_up() -> bool:
            # An image that failed takes the others of its request with it.
            return results.answered or not_awaited() or (writer is not None and writer.stopped())

        count = 0
        try:
            self._model.activity.check_whole()
            tensors = self._model.inputs(request)
            count = len(tensors["settings"])
            self._model.activity.images(came=count)
            check_room("settings", count, self._loop.held, self._max_queue)
            images = self._images(tensors, triton.deadline(request))
            writer = self._writer(request, images)
        except Exception as error:
            answer(error)
            return
        results = Results(len(images), answer)
        not_awaited = self._cancellations.watch(reply)
        for position, image in enumerate(images):
            done = results.of(position)
            try:
                self._loop.submit(image, done, given_up)
            except Exception as error:
                done(error)

    def _answer_all(self, requests: Sequence[Any]) -> list[Any]:
        """Responses to all of them, when the last image is done."""
        answers: list[Any] = [None] * len(requests)
        images: list[Denoising] = []
        owners: list[Callable] = []
        with contextlib.ExitStack() as writers:
            for position, request in enumerate(requests):
                try:
                    own = self._images(self._model.inputs(request), triton.deadline(request))
                    writer = self._writer(request, own)
                except Exception as error:
                    answers[position] = error
                    continue
                if writer is not None:
                    writers.callback(writer.close)
                results = Results(len(own), functools.partial(answers.__setitem__, position))
                images += own
                owners += map(results.of, range(len(own)))
            self._model.activity.images(came=len(images))
            for done, latents in zip(owners, self._loop.run_to_end(images)):
                done(latents)
        self._model.activity.images(went=len(images))
        return [self._response(latents) for latents in answers]

    def _images(self, tensors: dict[str, np.ndarray], deadline: float | None) -> list[Denoising]:
        """A request's images, one for each batch element, all of one size.

        `deadline` is the request's own on the monotonic clock. Raises InvalidRequest.
        """
        texts = tensors["settings"][:, 0]
        settings = [_sooner(Settings.from_json(text, self._limits), deadline) for text in texts]
        sizes = {(one.height, one.width) for one in settings}
        if len(sizes) > 1:
            raise InvalidRequest("settings", str(sorted(sizes)), "one height and width a batch")
        embeds = zip(tensors["prompt_embeds"], tensors["negative_prompt_embeds"])
        return [
            Denoising(one, *conditioning.of_prompts(*pair), self._model_files)
            for one, pair in zip(settings, embeds)
        ]

    def _writer(self, request: Any, images: list[Denoising]) -> progress.Writer | None:
        """The writer of the image's progress, if sd_ensemble_stream made the request."""
        if len(images) != 1:
            return None
        writer = progress.writer(request.request_id(), self._preview)
        images[0].watcher = writer
        return writer

    def _tell_end(self, images: int, latents: list[np.ndarray] | Exception) -> None:
        """Before the answer, so that the next stage does not see them come before they went."""
        failed = isinstance(latents, Exception)
        self._model.activity.images(**{"failed" if failed else "went": images})

    def _response(self, latents: list[np.ndarray] | Exception) -> Any:
        failed = isinstance(latents, Exception)
        return self._model.response(latents if failed else {"latents": np.stack(latents)})


class Cancellations:
    """Which of the requests in flight were given up, asked beside the loop's thread.

    Answers them itself if another stage's process dies: a call of the UNet then has no end.
    """

    INTERVAL = 0.01
    """Seconds from one round to the next."""

    def __init__(self, model: triton.Model) -> None:
        self._model = model
        self._condition = threading.Condition()
        self._replies: list[Reply] = []
        self._given_up: set[Reply] = set()
        self._closed = False
        threading.Thread(target=self._run, name="cancellations", daemon=True).start()

    def watch(self, reply: Reply) -> Callable[[], bool]:
        """Watch until `reply` is sent; the result says at no cost whether it was given up."""
        with self._condition:
            self._replies.append(reply)
            self._condition.notify()
        return lambda: reply in self._given_up

    def close(self) -> None:
        """End the thread after its round."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._replies = [reply for reply in self._replies if not reply.sent]
                self._given_up.intersection_update(self._replies)
                self._condition.wait_for(lambda: self._replies or self._closed)
                if self._closed:
                    return
                replies = list(self._replies)
            try:
                self._model.activity.check_whole()
            except Unavailable as error:
                for reply in replies:
                    reply.send(self._model.response(error))
            self._given_up.update(reply for reply in replies if reply.cancelled())
            time.sleep(self.INTERVAL)


class Results:
    """Collects what the loop gives for the images of one request, and calls `answer` once.

    It gets the latents in the images' order when all are done, or the first exception.
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


def _sooner(settings: Settings, deadline: float | None) -> Settings:
    """The settings, with `deadline` if that comes first."""
    if deadline is None or (settings.deadline is not None and settings.deadline < deadline):
        return settings
    return dataclasses.replace(settings, deadline=deadline)
