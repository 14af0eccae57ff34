"""`triptych gateway` where it cannot start, and what it leaves."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.gateway.running import started, wait_for
from triptych import cli

COMMAND = [sys.executable, "-m", "triptych.cli", "gateway"]


def test_the_command_says_why_it_cannot_start(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for options, code, said in (
            (
                ["--port", str(port)],
                1,
                f"port {port} (page) is in use on 127.0.0.1: stop what uses",
            ),
            (["--port=0", f"--metrics-port={port}"], 1, "or pass --metrics-port=N with a free"),
            (["--keys-file", str(tmp_path / "none")], 2, "keys: [Errno 2] No such file"),
            (["--api-key-file", str(tmp_path / "none")], 2, "No such file"),
            (["--log-prompts", "--no-access-log"], 2, "--log-prompts: needs --access-log"),
            (["--api-key-file", "/dev/null"], 2, "/dev/null is empty"),
            (["--pictures-folder", "/dev/null"], 2, "/dev/null cannot be used: [Errno 20] Not a"),
            (["--pictures-folder", "s3://a/b"], 2, "s3://a/b cannot be used: Install s3fs to"),
            (["--pictures-folder", "s4://a/b"], 2, "s4://a/b cannot be used: Protocol not known"),
            (
                ["--url", "http://localhost:8001"],
                2,
                "url: got 'http://localhost:8001'; allowed: host",
            ),
        ):
            assert cli.main(["gateway", *options]) == code
            error = capsys.readouterr().err
            assert said in error
            assert error.count("\n") == 1
        command = [*COMMAND, f"--port={port}"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert f"port {port} (page) is in use on 127.0.0.1: stop what uses" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("named", [(), ("--allow-host=localhost",)])
def test_where_it_listens_for_all_the_address_for_others_is_told(triton, named):
    command = [*COMMAND, "--host=0.0.0.0", "--port=0", "--url", triton.url, *named]
    with started(command) as process:
        assert "anybody may draw here" in process.stdout.readline()
        line = process.stdout.readline()
        here, others = line.split(" at ")[1].removesuffix(", for others"), line.split()[-1]
        assert here.startswith("http://127.0.0.1:")
        assert "0.0.0.0" not in others
        assert ("localhost" in others) == bool(named)
        for url in (here, others):
            assert httpx.get(f"{url}healthz").status_code == 200


@pytest.mark.parametrize("public", ["https://example.com/art", "https://example.com/art/"])
def test_the_address_that_pictures_addresses_begin_with(triton, public):
    command = [*COMMAND, "--port", "0", "--url", triton.url, "--public-url", public]
    with started(command) as process:
        url = process.stdout.readline().split()[-1].rstrip("/")
        asked = {"prompt": "x", "response_format": "url"}
        (image,) = httpx.post(f"{url}/v1/images/generations", json=asked).json()["data"]
        address = image["url"].removeprefix("https://example.com/art/")
        assert address.startswith("images/")
        assert httpx.get(f"{url}/{address}").headers["content-type"] == "image/png"


@contextlib.contextmanager
def drawing(triton, *options, **pipes):
    """A gateway at work, and the answer that it has not given yet, a future."""
    triton.hold.clear()
    command = [*COMMAND, "--port", "0", "--url", triton.url, *options]
    with started(command, **pipes) as process, ThreadPoolExecutor(1) as pool:
        url = process.stdout.readline().split()[-1].rstrip("/")
        asked = {"json": {"prompt": "x"}, "timeout": 30}
        answer = pool.submit(httpx.post, f"{url}/v1/images/generations", **asked)
        wait_for(lambda: triton.requests)
        yield process, answer


@pytest.mark.parametrize(("waits", "finishes"), [("20", True), ("1", False)])
def test_its_end_waits_for_a_picture_as_long_as_is_told(triton, waits, finishes):
    with drawing(triton, "--exit-timeout-secs", waits) as (process, answer):
        process.send_signal(signal.SIGTERM)
        time.sleep(3)
        triton.hold.set()
        status, told = answer.result().status_code, answer.result().json()
        if finishes:
            assert status == 200
        else:
            assert status == 503 and answer.result().headers["retry-after"]
            assert "the gateway has ended before" in told["error"]["message"]
        assert process.wait(30) == 0


def test_a_kept_connection_outlasts_the_proxies_that_keep_it(triton):
    """A proxy whose request meets the end of an idle connection answers 502."""
    with started([*COMMAND, "--port=0", "--url", triton.url]) as process:
        host = process.stdout.readline().split()[-1].split("/")[2]
        with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as connection:
            for idle in (0, 6):  # uvicorn by itself waits for 5 s
                time.sleep(idle)
                connection.request("GET", "/healthz")
                assert connection.getresponse().read()


def test_a_kept_connection_ends_with_an_answer_and_not_in_the_midst_of_a_request(triton):
    with started([*COMMAND, "--port", "0", "--url", triton.url]) as process:
        url = process.stdout.readline().split()[-1].rstrip("/")
        with httpx.Client() as one, httpx.Client() as other:
            for client in (one, other):
                assert "connection" not in client.get(f"{url}/healthz").headers
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            for client in (one, other):
                answer = client.get(f"{url}/healthz")
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert process.wait(30) == 0


def test_ctrl_c_waits_for_a_picture_also_where_nobody_reads_what_it_says(triton):
    reads, writes = os.pipe()
    os.close(reads)
    with drawing(triton, "--no-access-log", stderr=writes) as (process, answer):
        os.close(writes)
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        triton.hold.set()
        assert answer.result().status_code == 200
        assert process.wait(30) == 0


IN_A_PROCESS = """
import signal, sys
from triptych import cli
stops = signal.SIGTERM, signal.SIGINT
before = [signal.getsignal(signum) for signum in stops]
assert cli.main(["gateway", "--port", "0", "--url", sys.argv[1]]) == 0
assert [signal.getsignal(signum) for signum in stops] == before
"""


def test_signals_are_afterwards_whose_they_were(triton):
    command = [sys.executable, "-c", IN_A_PROCESS, triton.url]
    with started(command, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert (process.wait(30), process.stderr.read()) == (0, "")


def test_a_stream_that_its_end_breaks_off_is_no_failure_in_its_log(triton):
    triton.hold.clear()
    options = "--no-access-log", "--exit-timeout-secs", "1"
    command = [*COMMAND, "--port", "0", "--url", triton.url, *options]
    with started(command, stderr=subprocess.PIPE) as process:
        url = process.stdout.readline().split()[-1].rstrip("/")
        httpx.post(f"{url}/api/picture?tab=a&id=b", json={"prompt": "x"}).raise_for_status()
        with httpx.stream("GET", f"{url}/api/pictures?tab=a", timeout=30) as news:
            events = news.iter_text()  # kept, as its end would close the connection
            next(events)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        log = process.stderr.read()
        assert "Traceback" not in log and "timeout graceful shutdown exceeded" in log


def test_it_draws_as_many_pictures_at_a_time_as_a_server_streams():
    config = Path(__file__).parents[2] / "model_repository/sd_ensemble_stream/config.pbtxt"
    most = re.search(r'"max_streams" value \{ string_value: "(\d+)"', config.read_text())[1]
    assert cli.parse(["gateway"]).max_pictures == int(most)
