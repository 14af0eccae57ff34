"""The access log: a line of JSON for each request, under an id that Triton has been told."""

import json
import re
import signal
import subprocess
import sys
from datetime import datetime

import httpx
import pytest

from tests.gateway.test_keys import ask, write
from triptych.gateway.keys import Keys

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
GENERATIONS = "/v1/images/generations"
FOX = {"prompt": "a fox", "size": "64x64"}


def test_a_request_can_be_followed_to_triton(gateway, triton, lines):
    headers = {"x-request-id": "order-7:a", "traceparent": TRACEPARENT}
    answer = httpx.post(gateway.url + GENERATIONS, json={**FOX, "n": 2}, headers=headers)
    assert answer.headers["x-request-id"] == "order-7:a"
    assert triton.ids == [("order-7:a", TRACEPARENT)] * 2
    (line,) = lines(1)
    age = datetime.now().astimezone() - datetime.fromisoformat(line.pop("time"))
    assert 0 <= age.total_seconds() < 60
    assert 0 < line.pop("ms") < 60_000
    assert line == {
        "method": "POST",
        "path": GENERATIONS,
        "status": 200,
        "request_id": "order-7:a",
        "trace_id": TRACE,
        "client": "127.0.0.1",
        "model": "sd_ensemble",
        "pictures": 2,
    }


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "ü".encode()])
@pytest.mark.parametrize("trace", ["00-0-0-01", TRACEPARENT.upper(), TRACEPARENT + "-x"])
def test_ids_that_are_none_are_replaced(gateway, triton, lines, given, trace):
    headers = {"x-request-id": given, "traceparent": trace}
    answer = httpx.post(gateway.url + GENERATIONS, json=FOX, headers=headers)
    own = answer.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", own)
    assert triton.ids == [(own, None)]
    (line,) = lines(1)
    assert line["request_id"] == own and "trace_id" not in line


def test_a_picture_of_the_page_has_its_line_when_it_is_begun(gateway, triton, lines):
    triton.hold.clear()
    triton.held_from = 2
    named = f"{gateway.url}/api/picture?tab=mine&id=1"
    headers = {"traceparent": TRACEPARENT}
    answer = httpx.post(named, json={"prompt": "a fox"}, headers=headers)
    (begun,) = lines(1)
    assert (begun["path"], begun["status"], begun["pictures"]) == ("/api/picture", 200, 1)
    assert answer.headers["x-request-id"] == begun["request_id"] == triton.ids[0][0]
    assert triton.ids[0][1] == TRACEPARENT
    with httpx.stream("GET", f"{gateway.url}/api/pictures?tab=mine") as stream:
        events = stream.iter_lines()
        assert next(events) == "event: step"
        httpx.get(f"{gateway.url}/api/models")
        assert [line["path"] for line in lines(2)] == ["/api/picture", "/api/models"]
        triton.hold.set()
        list(events)
    read = lines(3)[2]
    assert (read["path"], read["status"]) == ("/api/pictures", 200)
    assert "pictures" not in read


def test_refusals_and_failures_have_lines_and_ids_too(start, triton, lines, monkeypatch):
    gateway = start(hosts=["127.0.0.1"])
    assert httpx.get(gateway.url, headers={"Host": "evil.example"}).status_code == 400
    monkeypatch.setattr(gateway.app.state.studio, "model", None)
    failed = httpx.get(f"{gateway.url}/healthz", headers={"x-request-id": "mine"})
    assert (failed.status_code, failed.headers["x-request-id"]) == (500, "mine")
    refused, failure = lines(2)
    assert (refused["status"], failure["status"]) == (400, 500)
    assert failure["request_id"] == "mine"


def test_the_pages_own_files_have_no_lines(gateway, lines):
    for name in ("page.js", "nothing.js"):
        httpx.get(f"{gateway.url}/web/{name}")
    httpx.get(f"{gateway.url}/api/models")
    assert [line["path"] for line in lines(2)] == ["/web/nothing.js", "/api/models"]


def test_a_kept_pictures_address_is_not_in_the_log(gateway, lines):
    asked = {**FOX, "response_format": "url"}
    url = httpx.post(gateway.url + GENERATIONS, json=asked).json()["data"][0]["url"]
    assert httpx.get(url).status_code == 200
    assert lines(2)[1]["path"] == "/images/..."


def test_a_jobs_address_is_not_in_the_log(gateway, lines):
    job = httpx.post(gateway.url + GENERATIONS, json={**FOX, "background": True}).json()
    assert httpx.get(f"{gateway.url}{GENERATIONS}/{job['id']}").status_code == 200
    told = [json.dumps(line) for line in lines(2)]
    assert '"path": "/v1/images/generations/..."' in told[1] and job["id"] not in "".join(told)


def test_keys_by_name_and_prompts_only_where_asked_for(start, tmp_path, lines):
    keys = Keys(write(tmp_path / "keys.json", {"name": "ada"}))
    url = start(keys=keys, log_prompts=True).url
    ask(url)
    ask(url, key="bob's")
    httpx.get(f"{url}/docs")
    drawn, unknown, page = lines(3)
    assert (drawn["key"], drawn["prompts"]) == ("ada", ["a fox"])
    assert (unknown["status"], unknown.get("key")) == (401, None)
    assert "key" not in page and "prompts" not in page


@pytest.mark.parametrize("options", [[], ["--no-access-log"], ["--no-access-log", "--access-log"]])
def test_the_command_writes_it_to_standard_error_unless_told_not_to(triton, options):
    command = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0", "--url", triton.url]
    command += options
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as gateway:
        try:
            url = gateway.stdout.readline().decode().split()[-1]
            httpx.get(f"{url}healthz")
        finally:
            gateway.send_signal(signal.SIGTERM)
        assert gateway.stdout.read() == b""
        lines = gateway.stderr.read().splitlines()
    written = options != ["--no-access-log"]
    assert [json.loads(line)["path"] for line in lines] == ["/healthz"] * written
