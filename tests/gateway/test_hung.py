"""What does not answer holds up what needs it, and nothing else."""

import base64
import io
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.gateway.running import wait_for
from tests.gateway.test_background import Jobs
from tests.gateway.test_webhooks import SECRET
from triptych.gateway import access, studio, webhooks
from triptych.gateway.kept import Kept
from triptych.gateway.webhooks import Webhooks

MANY = 45
"""More than a machine of any size has threads for by itself: asyncio's are up to 32."""
_file = io.BytesIO()
Image.new("RGB", (64, 64)).save(_file, "PNG")
PICTURE = _file.getvalue()


class Hung:
    """A function that does not return before `end` is set; `waiting`: how many wait for it.

    `about`: what must be among its arguments for that, if anything.
    """

    def __init__(self, function, about):
        self._function, self._about = function, about
        self.waiting = 0
        self.end = threading.Event()

    def __call__(self, *arguments, **named):
        if self._about is None or any(self._about in str(one) for one in arguments):
            self.waiting += 1
            assert self.end.wait(60)
        return self._function(*arguments, **named)


@pytest.fixture
def hang(monkeypatch):
    """`hang(owner, name, about)`: that function of its owner hangs until the test ends."""
    made = []

    def hang(owner, name, about=None):
        made.append(Hung(getattr(owner, name), about))
        monkeypatch.setattr(owner, name, made[-1])
        return made[-1]

    yield hang
    for one in made:
        one.end.set()


def check_all_else(gateway):
    """Pictures are drawn, also from others, and what is told of the gateway is told."""
    asked = {"prompt": "x", "init_images": [base64.b64encode(PICTURE).decode()]}
    for answer in (
        httpx.get(f"{gateway.url}/healthz", timeout=30),
        httpx.get(f"{gateway.url}/metrics", timeout=30),
        httpx.post(f"{gateway.url}/v1/images/generations", json={"prompt": "x"}, timeout=30),
        httpx.post(f"{gateway.url}/sdapi/v1/img2img", json=asked, timeout=30),
    ):
        assert answer.status_code == 200


def test_a_storage(start, hang):
    kept = Kept()
    gateway = start(kept=kept, max_pictures=2 * MANY)
    url = f"{gateway.url}/v1/images/generations"
    asked = {"prompt": "x", "response_format": "url"}
    address = httpx.post(url, json=asked).json()["data"][0]["url"]
    with ThreadPoolExecutor(2 * MANY) as pool, httpx.Client(timeout=60) as client:
        hung = [hang(kept._storage, name) for name in ("pipe_file", "cat_file")]
        asked = [pool.submit(client.post, url, json=asked) for _ in range(MANY)]
        asked += [pool.submit(client.get, address) for _ in range(MANY)]
        wait_for(lambda: sum(one.waiting for one in hung) >= 6)
        check_all_else(gateway)
        for one in hung:
            one.end.set()
        assert [one.result().status_code for one in asked] == [200] * len(asked)


def test_the_names_of_webhooks_hosts(start, hang, monkeypatch):
    monkeypatch.setattr(webhooks, "PAUSES", (0,))
    gateway = start(webhooks=Webhooks(["hooks.test"], SECRET))
    jobs = Jobs(gateway.url)
    hung = hang(socket, "getaddrinfo", "hooks.test")
    for _ in range(MANY):
        response = jobs.post(background=True, webhook="http://hooks.test/")
        assert response.status_code == 202
    wait_for(lambda: hung.waiting >= 6)
    check_all_else(gateway)


def test_a_server_that_is_asked_by_many(start, hang):
    gateway = start()
    hung = hang(gateway.app.state.studio.client, "models")
    with ThreadPoolExecutor(studio.ASKING) as pool, httpx.Client(timeout=60) as client:
        url = f"{gateway.url}/v1/models"
        asked = [pool.submit(client.get, url) for _ in range(studio.ASKING)]
        wait_for(lambda: hung.waiting == studio.ASKING)
        hung.end.set()
        assert [one.result().status_code for one in asked] == [200] * studio.ASKING


def test_a_client_that_does_not_send_the_rest(gateway, monkeypatch):
    monkeypatch.setattr(access, "STALLED", 0.3)
    monkeypatch.setattr(access, "MAX_BODIES", 3000)
    ask = {"prompt": "x", "negative_prompt": "y" * 1500}
    url = httpx.URL(f"{gateway.url}/v1/images/generations")
    head = "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n"
    head = head.format(url.path, url.netloc.decode()) + "Content-Length: 9000\r\n\r\n"
    with socket.create_connection((url.host, url.port), timeout=10) as stopped:
        stopped.sendall(head.encode() + b" " * 2000)
        answer = b""
        while part := stopped.recv(9000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the rest of the body has not come for 0.3 s" in answer
    assert httpx.post(url, json=ask).status_code == 200
