"""The gateway's own span of a request, as it is posted to a collector."""

import re
import subprocess
import sys

import grpc
import httpx
import pytest

from tests import otlp
from tests.gateway.receiver import Receiver
from tests.gateway.running import started, wait_for
from tests.gateway.test_access_log import FOX, GENERATIONS, TRACE, TRACEPARENT
from triptych.gateway.spans import Spans

CALLER = TRACEPARENT.split("-")[2]


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.host}")
        yield receiver


class Traced:
    """A gateway at `url` that traces."""

    def __init__(self, start, receiver):
        self._spans, self._receiver = Spans(), receiver
        self.url = start(spans=self._spans).url

    def spans(self):
        """What has come."""
        self._spans._provider.force_flush()
        return list(otlp.spans(self._receiver))


@pytest.fixture
def traced(start, receiver):
    return Traced(start, receiver)


def test_a_request_that_draws_has_a_span_and_triton_is_told_of_it(traced, triton, lines):
    headers = {"traceparent": TRACEPARENT, "x-request-id": "order-7"}
    httpx.post(traced.url + GENERATIONS, json={**FOX, "n": 2}, headers=headers)
    httpx.get(f"{traced.url}/v1/models", headers=headers)
    lines(2)
    (span,) = traced.spans()
    assert (span.name, span.trace, span.parent) == (f"POST {GENERATIONS}", TRACE, CALLER)
    assert 0 < span.ended - span.begun < 60e9 and span.error is None
    assert triton.ids == [("order-7", f"00-{TRACE}-{span.id}-01")] * 2
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": GENERATIONS,
        "http.response.status_code": 200,
        "triptych.request_id": "order-7",
        "triptych.model": "sd_ensemble",
        "triptych.pictures": 2,
    }


def test_a_request_without_a_trace_begins_one(traced, triton, lines):
    httpx.post(traced.url + GENERATIONS, json=FOX)
    (line,) = lines(1)
    (span,) = traced.spans()
    assert span.parent == "" and line["trace_id"] == span.trace
    assert triton.ids[0][1].startswith(f"00-{span.trace}-{span.id}-0")


def test_a_job_is_in_the_trace_of_the_request_that_began_it(traced, triton, lines):
    httpx.post(traced.url + GENERATIONS, json={**FOX, "background": True})
    (line,) = lines(1)
    (span,) = traced.spans()
    assert line["trace_id"] == span.trace
    assert span.attributes["http.response.status_code"] == 202
    wait_for(lambda: triton.ids)
    assert triton.ids[0][1].startswith(f"00-{span.trace}-{span.id}-0")


def test_what_fails_is_marked(traced, triton, lines):
    triton.abort = (grpc.StatusCode.INTERNAL, "no")
    httpx.post(traced.url + GENERATIONS, json=FOX)
    lines(1)
    (span,) = traced.spans()
    assert span.error is not None and span.attributes["http.response.status_code"] == 500


def test_a_trace_that_is_not_sampled_is_not_begun(monkeypatch, receiver, triton, start, lines):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    url = start(spans=Spans()).url
    httpx.post(url + GENERATIONS, json=FOX)
    (line,) = lines(1)
    assert triton.ids[0][1] is None and "trace_id" not in line


def test_a_trace_that_its_sender_does_not_sample_is_handed_on_as_it_is(traced, triton, lines):
    brought = f"00-{TRACE}-{CALLER}-00"
    httpx.post(traced.url + GENERATIONS, json=FOX, headers={"traceparent": brought})
    (line,) = lines(1)
    assert triton.ids[0][1] == brought and line["trace_id"] == TRACE
    assert traced.spans() == []


def test_the_command_traces_where_a_collector_is_named(triton, receiver):
    command = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0", "--url", triton.url]
    with started(command, stderr=subprocess.DEVNULL) as process:
        url = process.stdout.readline().split()[-1].rstrip("/")
        httpx.post(url + GENERATIONS, json=FOX)
        process.terminate()
        assert process.wait(30) == 0
    (span,) = otlp.spans(receiver)
    assert re.fullmatch("[0-9a-f]{32}", span.trace)
    assert b"triptych-gateway" in receiver.came[0][2]
