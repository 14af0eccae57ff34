"""Clients of the gateway that ask for one picture after another."""

from __future__ import annotations

import base64
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from tests.crowd import Crowd
from triptych.picture.metadata import read_settings

SMALL = {"size": "64x64", "num_inference_steps": 10, "guidance_scale": 1}


@dataclass(frozen=True)
class Answer:
    """`status` is None where no answer came; `begun` and `ended` are monotonic times.

    `asked` is the request with the seed that it was drawn with, `picture` the file.
    """

    status: int | None
    begun: float
    ended: float
    headers: dict[str, str]
    text: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    picture: bytes = b""


class Load(Crowd):
    """`clients` at a time ask for pictures until `end`, or for `requests` in all."""

    def __init__(self, url: str, clients: int, requests: int | None = None, **asked) -> None:
        self.answers: list[Answer] = []
        self._url = url
        self._asked = {**SMALL, **asked}
        self._numbers: Iterator[int] = iter(range(requests)) if requests else itertools.count()
        super().__init__(clients)

    def statuses(self) -> Counter:
        """How many answers had which status."""
        return Counter(answer.status for answer in self.answers)

    def problems(self) -> Counter:
        """How often something other than a picture was answered."""
        others = (answer for answer in self.answers if answer.status != 200)
        return Counter((answer.status, answer.text) for answer in others)

    def seconds(self, percentile: float) -> float:
        """The time that this percentage of the answers took at most."""
        return float(np.percentile([one.ended - one.begun for one in self.answers], percentile))

    def wait_for(self, answers: int) -> None:
        """Return when so many more have come."""
        wanted, deadline = len(self.answers) + answers, time.monotonic() + 120
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, "the clients get no answers"
            time.sleep(0.02)

    def run(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=100) as client:
            for request in self._numbers:
                if self._ended.is_set():
                    return
                self.answers.append(self._ask(client, request))

    @staticmethod
    def again(url: str, answer: Answer) -> bytes:
        """The picture that is drawn when the same is asked for once more."""
        told = httpx.post(f"{url}/v1/images/generations", json=answer.asked, timeout=100)
        return base64.b64decode(told.json()["data"][0]["b64_json"])

    def _ask(self, client: httpx.Client, number: int) -> Answer:
        asked = {"prompt": f"picture {number}", **self._asked}
        if number % 2:  # the others have the server draw a seed
            asked["seed"] = number
        begun = time.monotonic()
        try:
            answer = client.post("/v1/images/generations", json=asked)
        except httpx.HTTPError as error:
            return Answer(None, begun, time.monotonic(), {}, repr(error))
        ended = time.monotonic()
        picture = b""
        if answer.status_code == 200:
            picture = base64.b64decode(answer.json()["data"][0]["b64_json"])
            settings = read_settings(picture)
            assert settings.prompt == asked["prompt"]
            assert settings.seed == asked.setdefault("seed", settings.seed)
        times, told = (begun, ended), (dict(answer.headers), answer.text[:300])
        return Answer(answer.status_code, *times, *told, asked, picture)
