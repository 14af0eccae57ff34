"""Clients of a long run: good requests whose answers are known, some given up, bad ones."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

from tritonclient.utils import InferenceServerException

from tests.server.calls import Calls, Started, post, request, texts
from tests.server.fuzz import requests
from triptych.schedulers import NAMES

CHANCE = 20261122
BAD_CLIENTS = 3


def pictures() -> list[bytes]:
    """INPUT_0 of good requests: every scheduler, some sizes, step counts, formats and prompts."""
    chance = random.Random(CHANCE)
    prompts = ("a red circle", "🦊", "a yellow sun over green hills " * 20)
    made = []
    for scheduler in NAMES:
        for _ in range(4):
            made.append(
                request(
                    chance.choice(prompts),
                    negative_prompt=chance.choice(("", "blue")),
                    num_inference_steps=chance.randint(1, 5),
                    guidance_scale=chance.choice((1, 5, 7.5)),
                    seed=chance.getrandbits(64),
                    height=chance.choice((64, 96)),
                    width=chance.choice((64, 80)),
                    scheduler=scheduler,
                    output_format=chance.choice(("png", "jpeg", "webp")),
                )
            )
    return made


class Traffic:
    """All clients at once; `counts` by what came of their requests, `wrong` what should not be."""

    def __init__(self, grpc: str, http: str, channels: int) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._grpc, self._http, self._channels = grpc, http, channels
        self._pictures = pictures()
        self._first: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, bad_a_second: float) -> None:
        """Every client in a thread of its own."""
        clients: list[tuple[Callable, tuple]] = [(self._good, (n,)) for n in range(4)]
        clients += [(self._good_over_http, ()), (self._given_up, ())]
        clients += [(self._bad, (seed, bad_a_second / BAD_CLIENTS)) for seed in range(BAD_CLIENTS)]
        for client, arguments in clients:
            self._threads.append(
                threading.Thread(target=self._guarded, args=(client, arguments), daemon=True)
            )
            self._threads[-1].start()

    def end(self) -> None:
        """Let every client finish what it waits for."""
        self._ended.set()
        for thread in self._threads:
            thread.join(120)
            if thread.is_alive():
                self._complain("a request has had no answer for 2 minutes")

    def _guarded(self, client: Callable, arguments: tuple) -> None:
        try:
            client(*arguments)
        except Exception as error:
            self._complain(f"{client.__name__}: {error!r}")

    def _complain(self, text: str) -> None:
        with self._lock:
            self.wrong.append(text)

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _check(self, raw: bytes, output: bytes) -> None:
        """The same request must get what it got the first time."""
        base64.b64decode(output, validate=True)
        with self._lock:
            if self._first.setdefault(raw, output) != output:
                self.wrong.append(f"another picture for {raw!r}")
            self.counts["pictures"] += 1

    def _good(self, number: int) -> None:
        calls, chance = Calls(self._grpc), random.Random(number)
        while not self._ended.is_set():
            raw = chance.choice(self._pictures)
            started = Once(calls, raw)
            started.wait()
            if started.error is None:
                self._check(raw, started.result.as_numpy("OUTPUT_0")[0, 0])
            else:
                self._complain(f"{raw!r}: {started.error}")
            if started.answers != 1:
                self._complain(f"{started.answers} answers for {raw!r}")
        calls.close()

    def _good_over_http(self) -> None:
        chance = random.Random(-1)
        while not self._ended.is_set():
            raw = chance.choice(self._pictures)
            body = {"INPUT_0": raw.decode()}
            status, answer = post(f"{self._http}/v2/models/sd_ensemble/generate", body)
            if status == 200:
                self._check(raw, answer["OUTPUT_0"].encode())
            else:
                self._complain(f"{raw!r}: {status} {answer}")

    def _given_up(self) -> None:
        """By the settings' timeout, by Triton's own, and by a connection that is closed.

        Not by gRPC's cancel: when it meets the answer on its way Triton 24.10 dies (mended in
        25.01: github.com/triton-inference-server/server/pull/7840).
        """
        calls, chance = Calls(self._grpc), random.Random(-2)
        while not self._ended.is_set():
            settings = {**json.loads(chance.choice(self._pictures)), "num_inference_steps": 30}
            seconds = chance.uniform(0.001, 0.5)
            kind = chance.choice(("settings", "protocol", "connection"))
            try:
                if kind == "settings":
                    calls.pictures(request(**settings, timeout=seconds))
                elif kind == "protocol":
                    raw = texts(request(**settings))
                    calls.infer_within("sd_ensemble", {"INPUT_0": raw}, seconds)
                else:
                    self._close_soon(request(**settings), seconds)
                self._count("done before it was given up")
            except TimeoutError:
                self._count("connection closed")
            except InferenceServerException as error:
                if "timeout: " in error.message():
                    self._count("given up")
                else:
                    self._complain(f"given up, and got {error}")
            time.sleep(chance.uniform(0, 0.5))
        calls.close()

    def _close_soon(self, raw: bytes, seconds: float) -> None:
        body = json.dumps({"INPUT_0": raw.decode()}).encode()
        url = f"http://{self._http}/v2/models/sd_ensemble/generate"
        urllib.request.urlopen(url, body, timeout=seconds).close()

    def _bad(self, seed: int, a_second: float) -> None:
        calls = Calls(self._grpc)
        due = time.monotonic()
        for model, inputs in requests(seed, self._channels):
            due += 1 / a_second
            if self._ended.wait(max(0, due - time.monotonic())):
                break
            try:
                calls.infer(model, inputs)
                self._count("odd, but served")
            except InferenceServerException as error:
                self._count("refused")
                refused = error.status() == "StatusCode.INVALID_ARGUMENT"
                if not (refused or "not finite" in error.message()):
                    self._complain(f"a bad request got {error}")
        calls.close()


class Once(Started):
    """A call of the ensemble that counts its answers."""

    def __init__(self, calls: Calls, raw: bytes) -> None:
        self.answers = 0
        super().__init__(calls.client, "sd_ensemble", {"INPUT_0": texts(raw)})

    def _end(self, result: object, error: object) -> None:
        self.answers += 1
        super()._end(result, error)
