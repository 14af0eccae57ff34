"""A server under load whose processes are killed."""

from __future__ import annotations

import os
import signal
import time

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.crowd import Crowd
from tests.server.calls import Calls, request, texts
from tests.server.processes import Processes

SETTINGS = {"height": 64, "width": 64, "num_inference_steps": 40, "scheduler": "ddim"}
CLIENTS = 6
DIED = "the process of {} died; the server starts again, try later"


class Load(Crowd):
    """Clients that ask for one picture after another; `answers`: when they asked, what they got."""

    PATIENCE = 60.0

    def __init__(self, url: str, clients: int) -> None:
        self.answers: list[tuple[float, Exception | bytes]] = []
        self._url = url
        super().__init__(clients)

    def run(self, number: int) -> None:
        calls = Calls(self._url)
        raw = texts(request(f"client {number}", seed=number, **SETTINGS))
        while not self._ended.is_set():
            begun = time.monotonic()
            try:
                outputs = calls.infer("sd_ensemble", {"INPUT_0": raw}, timeout=50)
                self.answers.append((begun, outputs["OUTPUT_0"][0, 0]))
            except InferenceServerException as error:
                self.answers.append((begun, error))
                time.sleep(0.25)
        calls.close()


def kill(server, name: str) -> tuple[float, list[Exception]]:
    """Kill a process while requests run: seconds until others succeed, and the errors of those."""
    processes = Processes(server.process.pid)
    client = grpcclient.InferenceServerClient(server.grpc)
    with Load(server.grpc, CLIENTS) as load:
        wait(lambda: len(load.answers) > 3)
        old = processes.all()
        os.kill(old[name], signal.SIGKILL)
        begun = time.monotonic()
        wait(lambda: not _ready(client))
        wait(lambda: _ready(client) and isinstance(load.answers[-1][1], bytes))
        seconds = time.monotonic() - begun
        new = processes.all()
    client.close()
    assert set(new) == set(old)
    assert not set(new.values()) & set(old.values()) - {server.process.pid}
    pictures = {answer for _, answer in load.answers if isinstance(answer, bytes)}
    assert len(pictures) == CLIENTS  # every client's own, the same before and after
    return seconds, [
        answer for at, answer in load.answers if at < begun and isinstance(answer, Exception)
    ]


def wait(holds, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _ready(client) -> bool:
    try:
        return client.is_model_ready("sd_ensemble", client_timeout=1)
    except InferenceServerException:
        return False
