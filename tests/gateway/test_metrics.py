"""The gateway's own page for Prometheus."""

import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.running import started, wait_for
from triptych.gateway import metrics

GENERATIONS = "/v1/images/generations"
FOX = {"prompt": "a fox", "size": "64x64"}


def page(url):
    """The samples on it, by name and labels."""
    answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples(answer.text)


def samples(text):
    def full(name, labels):
        told = ",".join(f'{label}="{value}"' for label, value in labels.items() if value)
        return f"{name}{{{told}}}" if told else name

    families = text_string_to_metric_families(text)
    return {full(one.name, one.labels): one.value for family in families for one in family.samples}


def test_requests_by_route_and_status_and_pictures_without_any_key(start, triton):
    url = start().url
    triton.hold.clear()
    drawing = threading.Thread(
        target=httpx.post, args=(url + GENERATIONS,), kwargs={"json": {**FOX, "n": 2}}
    )
    drawing.start()
    wait_for(lambda: page(url)["triptych_gateway_pictures_in_flight"] == 2)
    assert page(url)["triptych_gateway_requests_in_flight"] == 2  # with the one that asks
    triton.hold.set()
    drawing.join()
    httpx.post(url + GENERATIONS, json={**FOX, "size": "65x64"})
    httpx.get(f"{url}{GENERATIONS}/none")
    httpx.get(f"{url}/nothing")
    found = page(url)
    assert found[f'triptych_gateway_requests_total{{code="503",route="{GENERATIONS}"}}'] == 0
    total = "triptych_gateway_requests_total"
    assert found[f'{total}{{code="200",route="{GENERATIONS}"}}'] == 1
    assert found[f'{total}{{code="400",route="{GENERATIONS}"}}'] == 1
    assert found[f'{total}{{code="404",route="{GENERATIONS}/{{id}}"}}'] == 1
    assert found[f'{total}{{code="404",route="none"}}'] == 1
    assert found["triptych_gateway_pictures_total"] == 2
    assert found["triptych_gateway_pictures_in_flight"] == 0
    seconds = f'triptych_gateway_request_seconds_%s{{%sroute="{GENERATIONS}"}}'
    assert found[seconds % ("count", "")] == found[seconds % ("bucket", 'le="+Inf",')] == 2
    buckets = [
        value for name, value in found.items() if "bucket" in name and f'"{GENERATIONS}"' in name
    ]
    assert len(buckets) == 9 and buckets == sorted(buckets)
    assert 0 < found[seconds % ("sum", "")] < 60


def test_who_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(metrics, "PATIENCE", 0.2)
    page = metrics.server("127.0.0.1", 0, CollectorRegistry())
    with socket.create_connection(page.server_address, timeout=10) as silent:
        assert silent.recv(1) == b""
    page.shutdown(), page.server_close()


def test_the_page_asks_for_the_key(start):
    url = start(api_key="sesame").url
    assert httpx.get(f"{url}/metrics").status_code == 401
    headers = {"Authorization": "Bearer sesame"}
    answer = httpx.get(f"{url}/metrics", headers=headers)
    assert 'code="401",route="/metrics"} 1' in answer.text


def test_a_port_of_its_own_needs_no_key_and_has_nothing_else(triton, tmp_path):
    (tmp_path / "key").write_text("sesame")
    command = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0", "--url", triton.url]
    command += ["--api-key-file", str(tmp_path / "key"), "--allow-host", "gateway.example"]
    with started([*command, "--metrics-port", "0"], stderr=subprocess.PIPE) as process:
        own, url = (process.stdout.readline().split()[-1].rstrip("/") for _ in range(2))
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", own)
        assert httpx.get(f"{url}/metrics").status_code == 401
        headers = {"Host": "gateway:8002"}
        found = samples(httpx.get(own, headers=headers).text)
        assert found['triptych_gateway_requests_total{code="401",route="/metrics"}'] == 1
        elsewhere = httpx.get(own.replace("/metrics", "/v1/models")).text
        assert samples(elsewhere).keys() == found.keys()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
