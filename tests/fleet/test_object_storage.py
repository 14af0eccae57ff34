"""Gateways whose pictures are in object storage, by s3fs."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.fleet.conftest import gateway
from tests.fleet.object_storage import ObjectStorage
from tests.gateway.running import wait_for

PLACE = "--pictures-folder=s3://pictures/kept"
AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
from triptych.gateway.kept import Kept
Kept("s3://pictures/other")  # has connected
with ThreadPoolExecutor(32) as pool:
    one, *others = pool.map(Kept, ["s3://pictures/kept"] * 32)
address = one.put(b"a picture", "png").split("?signature=")
print([other.get(*address) == b"a picture" for other in others])
"""


@pytest.fixture(params=ObjectStorage.kinds)
def storage(request, tmp_path):
    folder = tmp_path / "objects"
    folder.mkdir()
    with ObjectStorage(request.param, folder) as running:
        yield running


@pytest.fixture
def start(stand_ins, storage):
    """`start()`: the address of one more gateway with its pictures in the storage."""
    ((server, _), _) = stand_ins.addresses()
    with ExitStack() as stack:

        def started():
            url = stack.enter_context(gateway(server, PLACE, env=storage.env))
            wait_for(lambda: httpx.get(f"{url}/healthz").status_code == 200)
            return url

        yield started


def ask(url):
    asked = {"prompt": "x", "response_format": "url"}
    return httpx.post(f"{url}/v1/images/generations", json=asked, timeout=60)


def test_gateways_answer_for_each_other(start):
    one, other = start(), start()
    for asked, answering in ((one, other), (other, one)):
        target = httpx.URL(ask(asked).json()["data"][0]["url"]).raw_path.decode()
        here, there = (httpx.get(url + target) for url in (asked, answering))
        assert (here.status_code, there.status_code) == (200, 200)
        assert here.content == there.content and here.content.startswith(b"\x89PNG")
        assert httpx.get(answering + target[:-1]).status_code == 404
        assert httpx.get(f"{answering}/images/secret").status_code == 404


def test_storage_that_is_away_is_told_and_blocks_nobody(start, storage):
    url = start()
    address = ask(url).json()["data"][0]["url"]
    storage.stop()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask, url), pool.submit(httpx.get, address, timeout=60)]
        begun = time.monotonic()
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert time.monotonic() - begun < 2 and not any(one.done() for one in answers)
        put, got = (one.result() for one in answers)
    assert (put.status_code, got.status_code) == (503, 503)
    assert put.json()["error"]["message"].endswith("ask for response_format b64_json")
    assert got.json()["error"]["message"].endswith("try again later")


def test_a_bucket_that_is_not_there_is_told_before_the_gateway_listens(storage):
    command = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0"]
    run = subprocess.run(
        [*command, "--pictures-folder=s3://none/kept"],
        env=storage.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert "s3://none/kept cannot be used: The specified bucket does not exist" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("storage", ["moto"], indirect=True)
def test_gateways_that_start_at_once_agree_on_the_secret(storage):
    run = subprocess.run(
        [sys.executable, "-c", AT_ONCE], env=storage.env, capture_output=True, text=True, timeout=60
    )
    assert run.stdout == f"{[True] * 31}\n", run.stderr
