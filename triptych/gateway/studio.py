"""Drawing from asyncio: each picture's gRPC stream is read in a thread of a pool."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from triptych.client import (
    Client,
    NotReady,
    NotThere,
    Overloaded,
    Picture,
    PictureStream,
    Refused,
)
from triptych.errors import InvalidRequest
from triptych.gateway.access_log import ENTRY
from triptych.gateway.errors import problem
from triptych.gateway.keys import CALLER, TooMany
from triptych.gateway.line import Line
from triptych.gateway.metrics import Counts
from triptych.gateway.pictures import ANY_PICTURE
from triptych.limits import Limits
from triptych.names import Names, chosen
from triptych.streaming import Step

Watch = Callable[[int, Step], None]
Wait = Callable[[int, int], None]
ASKING = 32
"""Questions to the server at a time. One that hangs holds each for its 5 or 30 s; asyncio's own
threads, of which there are 6 on two cores, also look for the hosts of webhooks."""

log = logging.getLogger(__name__)


class Studio:
    """Draws through one gRPC connection, at most `max_pictures` at a time.

    Half of that, rounded up, is the most for jobs: the rest is for those who wait for an answer.
    """

    def __init__(self, client: Client, max_pictures: int, timeout: float) -> None:
        """`timeout`: seconds that one picture may take."""
        self.client = client
        self._most = max_pictures
        self._most_in_jobs = (max_pictures + 1) // 2
        self._timeout = timeout
        self._drawing = self._in_jobs = self._drawn = 0
        self._line = Line()
        self._threads = ThreadPoolExecutor(max_pictures)
        self._asking = ThreadPoolExecutor(ASKING)
        self._away: type[Exception] | None = None

    async def draw(
        self,
        asked: Sequence[dict[str, Any]],
        watch: Watch | None = None,
        preview_every: int = 0,
        wait: Wait | None = None,
        job: bool = False,
    ) -> list[Picture]:
        """The pictures of some requests, keyword arguments of `Client.stream` each.

        All have the same `model`, which is one of the server's; see `Studio.model`.
        `watch(i, step)` is called in the event loop as the i-th picture comes along, and before
        its first step `wait(i, place)`, with its place among all pictures of this gateway that
        wait for theirs. `job`: whether nobody waits for the answer. If one fails, or the caller is
        cancelled, all are given up. Raises a ClientError: Overloaded without room now, TooMany for
        more pictures than are ever drawn at a time, and what the caller's key does not allow.
        """
        caller = CALLER.get()
        _note(asked)
        model, alone = asked[0]["model"], nullcontext(lambda: None)
        own_room = caller.room(len(asked), model) if caller else alone
        with self._room(len(asked), job), own_room as begin:

            def steps(number: int, step: Step) -> None:
                begin()
                if watch is not None:
                    watch(number, step)

            started = _Started()
            try:
                pictures = await asyncio.gather(
                    *(
                        self._follow(i, one, started, steps, preview_every, wait)
                        for i, one in enumerate(asked)
                    )
                )
                self._is_ready()
                return pictures
            except Overloaded:
                if len(asked) > 1:
                    await self.ask(self._check_server, len(asked), Names(model))
                raise
            finally:
                started.cancel()

    async def check_job(self, asked: Sequence[dict[str, Any]]) -> None:
        """Raise a ClientError if `draw` would refuse these as a job, whatever room there is.

        A server without room does not look at all that they say, so that the rest is seen to when
        they are drawn.
        """
        caller = CALLER.get()
        _note(asked)
        if caller is not None:
            caller.check(len(asked), asked[0]["model"])
        self._check_number(len(asked), job=True)
        with suppress(Overloaded):
            await self.ask(lambda: self.client.settings_of(**asked[0]))

    async def check(self) -> None:
        """Raise a ClientError unless there is a server that has loaded a model."""
        await self.ask(self.client.check, await self.model())
        self._is_ready()

    async def models(self) -> list[str]:
        """Those of the server that the caller's key allows, the one that is meant by None first.

        Raises a ClientError.
        """
        return _allowed(await self.ask(self.client.models))

    async def model(self, name: str | None = None) -> str:
        """The server's model of that name, or the one that is meant by None; raises a ClientError.

        Refused, with the list of those that the caller's key allows, for a name of no model.
        """
        there = await self.ask(self.client.models)
        if name in there:
            return name  # `draw` says whether the key allows it
        try:
            return chosen(name, _allowed(there))
        except InvalidRequest as error:
            raise Refused(str(error)) from error

    async def takes_pictures(self, model: str) -> bool:
        """Whether a model can start from a picture; raises a ClientError."""
        return await self._takes(model, "image", image=ANY_PICTURE, width=64, height=64)

    async def takes_prompt_2(self, model: str) -> bool:
        """Whether a model has a second text encoder, as SDXL has; raises a ClientError."""
        return await self._takes(model, "prompt_2", prompt_2="x")

    async def loras(self, model: str) -> list[str]:
        """The names of the LoRAs of one of the server's models; raises a ClientError."""
        return await self.ask(self.client.loras, model)

    async def limits(self, model: str) -> Limits:
        """The most that the server lets a request to a model ask for; raises a ClientError.

        By the tokenizer's parameters and the largest latents that unet's config.pbtxt names, as
        the server's stages read them. What the model does by itself it may in any case: see
        Limits.widened.
        """
        stages = (Names(model).stage(name) for name in ("tokenizer", "unet"))
        tokenizer, unet = await asyncio.gather(
            *(self.ask(self.client.config, stage) for stage in stages)
        )
        known = Limits.from_parameters(_parameters(tokenizer))
        for accelerator in unet.optimization.execution_accelerators.gpu_execution_accelerator:
            if accelerator.name == "max_shape":
                known = known.within_latents(accelerator.parameters.get("sample", ""), 8)
        return known

    async def about(self, model: str) -> dict[str, Any]:
        """What a model's config.pbtxt says of it for people: title, about, has_samples.

        Its parameters of the same names; raises a ClientError.
        """
        said = _parameters(await self.ask(self.client.config, model))
        texts = {name: said.get(name, "") for name in ("title", "about")}
        return {**texts, "has_samples": said.get("has_samples") == "true"}

    async def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `question(*arguments)`, a short blocking call, made in a thread."""
        with self._logging():
            events = asyncio.get_running_loop()
            return await events.run_in_executor(self._asking, question, *arguments)

    def counts(self) -> dict[str, Counts]:
        """Of all callers, who have no name."""
        return {"": Counts(self._drawn, self._drawing, {})}

    def close(self) -> None:
        """End the connection and the threads."""
        self.client.close()
        self._threads.shutdown()
        self._asking.shutdown()

    async def _takes(self, model: str, field: str, **asked: Any) -> bool:
        """Whether a model does not refuse what is asked because of `field`."""
        try:
            await self.ask(lambda: self.client.settings_of("x", model=model, **asked))
        except Refused as error:
            return problem(error).field != field
        return True

    def _check_number(self, pictures: int, job: bool) -> None:
        most = self._most_in_jobs if job else self._most
        if pictures > most:
            what = "in a job, half of the gateway's" if job else "the gateway's"
            raise TooMany(pictures, f"at most {most}, {what} --max-pictures")

    @contextmanager
    def _room(self, pictures: int, job: bool):
        self._check_number(pictures, job)
        if self._drawing + pictures > self._most:
            raise Overloaded(f"{self._drawing} of {self._most} pictures are being drawn; try later")
        in_jobs = pictures if job else 0
        if job and self._in_jobs + in_jobs > self._most_in_jobs:
            drawing = f"{self._in_jobs} of {self._most_in_jobs} pictures of jobs are being drawn"
            raise Overloaded(f"{drawing}; try later")
        self._drawing += pictures
        self._in_jobs += in_jobs
        try:
            yield
            self._drawn += pictures
        finally:
            self._drawing -= pictures
            self._in_jobs -= in_jobs

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Log why the server is away or not ready when it begins to be, not each time."""
        try:
            yield
        except (NotThere, NotReady) as error:
            if self._away is not type(error):
                self._away = type(error)
                log.warning("%s", error)
            raise

    def _is_ready(self) -> None:
        if self._away is not None:
            self._away = None
            log.warning("the server is ready again")

    def _check_server(self, pictures: int, names: Names) -> None:
        """Raise TooMany for more pictures than the server ever has in work of one model."""
        for model, name in ((names.stage("unet_loop"), "max_queue"), (names.stream, "max_streams")):
            most = self.client.config(model).parameters[name].string_value
            if most.isdecimal() and pictures > int(most):
                raise TooMany(pictures, f"at most {most}, the {name} of the server's {model}")

    async def _follow(
        self,
        number: int,
        request: dict[str, Any],
        started: _Started,
        watch: Watch,
        preview_every: int,
        wait: Wait | None,
    ) -> Picture:
        """A picture of `draw`; a thread also makes the request, which may hold pictures."""
        events, entry = asyncio.get_running_loop(), ENTRY.get()
        own = {"request_id": entry.request_id, "headers": entry.metadata} if entry else {}

        def waits(place: int) -> None:
            if wait is not None:
                wait(number, place)

        def steps(step: Step) -> None:
            begins()
            watch(number, step)

        def follow() -> Picture:
            stream = self.client.stream(
                **request, **own, timeout=self._timeout, preview_every=preview_every
            )
            started.add(stream)
            for told in stream:
                if isinstance(told, Step):
                    events.call_soon_threadsafe(steps, told)
            return told

        with self._logging(), self._line.wait(waits) as begins:
            return await events.run_in_executor(self._threads, follow)


def _allowed(there: list[str]) -> list[str]:
    """Those of the server's models that the caller may draw with."""
    caller = CALLER.get()
    return caller.allowed(there) if caller else there


def _note(asked: Sequence[dict[str, Any]]) -> None:
    """Have the request's line in the access log say what is drawn."""
    entry = ENTRY.get()
    if entry is not None:
        entry.draws(asked)


def _parameters(config: Any) -> dict[str, str]:
    """The parameters in a config.pbtxt that is protobuf."""
    return {name: value.string_value for name, value in config.parameters.items()}


class _Started:
    """The streams of one `Studio.draw`, which are given up together."""

    def __init__(self) -> None:
        self._streams: list[PictureStream] = []
        self._cancelled = False
        self._lock = threading.Lock()

    def add(self, stream: PictureStream) -> None:
        """Have `cancel` end this stream too, at once if it was called before."""
        with self._lock:
            self._streams.append(stream)
            cancelled = self._cancelled
        if cancelled:
            stream.cancel()

    def cancel(self) -> None:
        """End the streams that are there and those that are still to come."""
        with self._lock:
            self._cancelled = True
        for stream in self._streams:
            stream.cancel()
