"""The model unet_loop between Triton and the denoising loop: requests to images, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from triptych import sdxl, webui_prompt
from triptych.denoise import conditioning
from triptych.denoise.cohorts import Cohorts
from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.observer import Observer
from triptych.denoise.preview import Preview
from triptych.denoise.start import Start, encoded
from triptych.errors import Cancelled, Expired, InvalidRequest, LoopClosed
from triptych.ipc import progress
from triptych.ipc.activity import Instances
from triptych.limits import AT_A_TIME
from triptych.model_files import ModelFiles
from triptych.picture.reading import size_of
from triptych.settings import Settings
from triptych.stages import loras, triton
from triptych.stages.admission import check_room
from triptych.stages.awaited import Cancellations, Results
from triptych.stages.limits import limits
from triptych.stages.loop_metrics import LoopMetrics
from triptych.stages.reply import Reply, replies
from triptych.stages.served_unet import ServedUNet
from triptych.stages.started_pool import started_pool
from triptych.stages.traces import Traces

READERS = 8
"""Requests whose pictures are read at a time; the others wait. vae_encoder joins their calls."""


class LoopStage:
    """Hands each request's images to the loop and answers it when the last of them is done.

    A request that brings pictures has them decoded and encoded first, in a thread of their own, so
    that neither Triton's thread nor the loop's waits for that.
    """

    def __init__(self, model: triton.Model) -> None:
        triton.check_reach(model, "unet")
        self._model = model
        self._model_files = ModelFiles.load(model.folder)
        self._limits = limits(model, self._model_files)
        self._preview = Preview(self._model_files) if self._model_files.latent_rgb else None
        self._takes_pictures = bool(model.config_beside("vae_encoder"))
        if self._takes_pictures:
            triton.check_reach(model, "vae_encoder")
        self._loras = loras.folder(model)
        self._text_encoders = loras.TextEncoders(model)
        self._max_queue = model.count("max_queue", AT_A_TIME)
        model.activity.limit(self._max_queue)
        self._metrics = LoopMetrics({"model": model.name})
        unet = model.names.stage("unet")
        rows = model.count("max_rows", 32)

        def loop(number: int, observer: Observer) -> DenoisingLoop:
            return DenoisingLoop(ServedUNet(unet, number), rows, observer)

        self._loop = Cohorts(_cohorts(model, unet), loop, self._metrics)
        self._cancellations = Cancellations(model)
        self._traces = Traces()
        self._readers = started_pool(READERS, "pictures")
        self._answers = started_pool(1, "answers")
        self._held = 0
        self._closed = False
        self._lock = threading.Lock()

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
        self._closed = True
        self._readers.shutdown()
        self._loop.close()
        self._answers.shutdown()
        self._metrics.close()
        self._traces.close()
        self._cancellations.close()

    def _start(self, request: Any, reply: Reply) -> None:
        awaited = _Awaited(self, reply)
        try:
            self._model.activity.check_whole()
            tensors = self._model.inputs(request)
            awaited.images = tensors["settings"][:, 0]
            self._model.activity.images(came=awaited.images)
            deadline, token = triton.deadline(request), request.request_id()
            awaited.trace = triton.trace_context(request)
            self._hold(awaited)
        except Exception as error:
            awaited.answer(error)
            return
        awaited.not_awaited = self._cancellations.watch(reply)
        if not _takes_time(tensors):
            self._submit(tensors, deadline, token, awaited)
            return
        self._readers.submit(self._submit, tensors, deadline, token, awaited)

    def _hold(self, awaited: _Awaited) -> None:
        """Count its images until they are answered; raises where there is no room for them."""
        with self._lock:
            images = len(awaited.images)
            check_room("settings", images, self._held, self._max_queue, self._model.name)
            self._held += images
            awaited.held = images
            self._model.activity.set(self._held)

    def _submit(self, tensors: dict, deadline: float | None, token: str, awaited: _Awaited) -> None:
        try:
            if self._closed:
                raise LoopClosed("the denoising loop is closed")
            awaited.writer = self._writer(token, len(tensors["settings"]))
            if awaited.given_up():
                raise Cancelled("cancelled before the image was finished")
            images = self._images(tensors, deadline)
            images[0].watcher = awaited.writer
        except Exception as error:
            awaited.answer(error)
            return
        # An answer takes Triton's process time, for which the UNet is not to wait.
        answer = functools.partial(self._answers.submit, awaited.answer)
        results = Results(len(images), answer)

        def given_up() -> bool:
            # An image that failed takes the others of its request with it.
            return results.answered or awaited.given_up()

        for position, image in enumerate(images):
            done = results.of(position)
            if awaited.trace is not None:
                done = self._traces.follow(image, awaited.trace, done)
            try:
                self._loop.submit(image, done, given_up)
            except Exception as error:
                done(error)

    def _answer_all(self, requests: Sequence[Any]) -> list[Any]:
        """Responses to all of them, when the last image is done."""
        answers: list[Any] = [None] * len(requests)
        images: list[Denoising] = []
        owners: list[Callable] = []
        came: dict[int, Sequence[bytes]] = {}
        with contextlib.ExitStack() as writers:
            for position, request in enumerate(requests):
                try:
                    tensors = self._model.inputs(request)
                    came[position] = tensors["settings"][:, 0]
                    own = self._images(tensors, triton.deadline(request))
                    writer = own[0].watcher = self._writer(request.request_id(), len(own))
                except Exception as error:
                    answers[position] = error
                    continue
                if writer is not None:
                    writers.callback(writer.close)
                results = Results(len(own), functools.partial(answers.__setitem__, position))
                images += own
                owners += map(results.of, range(len(own)))
            self._model.activity.images(came=[one for told in came.values() for one in told])
            with self._model.activity:
                latents = self._loop.run_to_end(
                    images, lambda image: image.watcher is not None and image.watcher.stopped()
                )
                for done, one in zip(owners, latents):
                    done(one)
        for position, told in came.items():
            self._tell_done(told, answers[position])
        return [self._response(latents) for latents in answers]

    def _images(self, tensors: dict[str, np.ndarray], deadline: float | None) -> list[Denoising]:
        """A request's images, one for each batch element, all of one size.

        `deadline` is the request's own on the monotonic clock. Raises InvalidRequest.
        """
        texts = tensors["settings"][:, 0]
        settings = [_sooner(Settings.from_json(text, self._limits), deadline) for text in texts]
        drawn = [one.second_pass or one for one in settings]
        sizes = {(one.height, one.width) for one in drawn}
        if len(sizes) > 1:
            raise InvalidRequest("settings", str(sorted(sizes)), "one height and width a batch")
        pictures = tensors.get("pictures", [(b"", b"")] * len(settings))
        known = (*conditioning.EMBEDS, *conditioning.SDXL_EMBEDS)
        images = []
        for row, (one, files) in enumerate(zip(settings, pictures)):
            sdxl.refuse(one, self._model_files)
            embeds = {name: tensors[name][row] for name in known if name in tensors}
            adapters = self._loras.find(webui_prompt.loras_of(one))
            if adapters:
                embeds.update(self._text_encoders.embeds(one, adapters, self._loras))
            images.append(
                Denoising(
                    one,
                    *conditioning.of_embeds(embeds, one, self._model_files),
                    self._model_files,
                    self._encoded(one, *files),
                    adapters,
                )
            )
        return images

    def _encoded(self, settings: Settings, image: bytes, mask_image: bytes) -> Start | None:
        """What the image starts from, None for noise alone."""
        if bool(image) != (settings.strength is not None) or (mask_image and not image):
            allowed = "an image with strength, and mask_image with them, or none of the three"
            raise InvalidRequest("pictures", image or mask_image, allowed)
        if not image:
            return None
        if not self._takes_pictures:
            raise InvalidRequest("pictures", image, "none: this model has no vae_encoder")
        if settings.expired:
            raise Expired("timeout: the request's time was over before its picture was read")
        for field, file in (("image", image), ("mask_image", mask_image)):
            if file:
                size_of(field, file, self._limits)
        return encoded(settings, image, mask_image, self._model_files, self._vae_encoder)

    def _vae_encoder(self, sample: np.ndarray) -> np.ndarray:
        model = self._model.names.stage("vae_encoder")
        return triton.call(model, {"sample": sample}, "latent_parameters")

    def _writer(self, token: str, images: int) -> progress.Writer | None:
        """The writer of an image's progress, if the model's stream made the request."""
        if images != 1:
            return None
        return progress.writer(self._model.names.stream, token, self._preview)

    def _tell_end(self, awaited: _Awaited, latents: list[np.ndarray] | Exception) -> None:
        """Before the answer: then there is room for others, and no stage sees them too early."""
        self._tell_done(awaited.images, latents)
        with self._lock:
            self._held -= awaited.held
            self._model.activity.set(self._held)

    def _tell_done(self, images: Sequence[bytes], latents: list[np.ndarray] | Exception) -> None:
        failed = isinstance(latents, Exception)
        told = {"failed": len(images)} if failed else {"went": images}
        self._model.activity.images(**told)

    def _response(self, latents: list[np.ndarray] | Exception) -> Any:
        failed = isinstance(latents, Exception)
        return self._model.response(latents if failed else {"latents": np.stack(latents)})


class _Awaited:
    """A request that is to be answered, once, with its latents or with what failed."""

    def __init__(self, stage: LoopStage, reply: Reply) -> None:
        self._stage = stage
        self._reply = reply
        self.images: Sequence[bytes] = ()
        self.held = 0
        self.writer: progress.Writer | None = None
        self.trace: dict[str, str] | None = None
        self.not_awaited: Callable[[], bool] = lambda: False

    def given_up(self) -> bool:
        """Whether whoever asked does not wait any more, or has its stream stop the image."""
        return self.not_awaited() or (self.writer is not None and self.writer.stopped())

    def answer(self, latents: list[np.ndarray] | Exception) -> None:
        self._stage._tell_end(self, latents)
        try:
            self._reply.send(self._stage._response(latents))
        except Exception as error:  # no memory for it
            self._reply.send(self._stage._response(error))
        finally:
            if self.writer is not None:
                self.writer.close()


def _cohorts(model: triton.Model, unet: str) -> Callable[[], int]:
    """How many calls of the UNet are made at a time: as many as it has processes, one a GPU.

    The parameter `cohorts` says it where they cannot be seen: without a launcher, and with
    FastDeploy's own backend.
    """
    if "cohorts" in model.parameters:
        cohorts = model.count("cohorts", 1)
        return lambda: cohorts
    processes = Instances(model.activity.folder, unet)
    return lambda: max(1, processes.living())


def _takes_time(tensors: dict[str, np.ndarray]) -> bool:
    """Whether other stages are called, or files read, before the images can begin."""
    if any(b"lora" in text for text in tensors["settings"][:, 0]):
        return True
    return any(len(file) for row in tensors.get("pictures", ()) for file in row)


def _sooner(settings: Settings, deadline: float | None) -> Settings:
    """The settings, with `deadline` if that comes first."""
    if deadline is None or (settings.deadline is not None and settings.deadline < deadline):
        return settings
    return dataclasses.replace(settings, deadline=deadline)
