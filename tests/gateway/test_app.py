"""What holds for the whole gateway."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.gateway.running import wait_for
from triptych import cli
from triptych.gateway import access
from triptych.gateway.access import FILES, MAX_BODY, MAX_FILE_BODY
from triptych.gateway.app import LOOPBACK

PAGE = "/api/picture?tab=t&id=1"


def test_health(gateway, triton):
    answer = httpx.get(f"{gateway.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    triton.ready = False
    answer = httpx.get(f"{gateway.url}/healthz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json() == {"status": "the server has not loaded its model"}


def test_without_a_server_everything_says_so_and_the_log_why(triton, caplog):
    from tests.gateway.running import Gateway

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with Gateway(address) as gateway:
            health = httpx.get(f"{gateway.url}/healthz", timeout=30)
            assert (health.status_code, health.headers["retry-after"]) == (503, "5")
            assert health.json() == {"status": "no server answers"}
            for path, asked in (
                ("/v1/images/generations", {"prompt": "x"}),
                ("/sdapi/v1/txt2img", {"prompt": "x"}),
                (PAGE, {"prompt": "x"}),
            ):
                answer = httpx.post(gateway.url + path, json=asked, timeout=60)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                told = answer.json()
                said = told.get("detail") or told.get("message") or told["error"]["message"]
                assert said == "no server is ready; try later"
    (line,) = caplog.messages
    assert line.startswith(f"no server at {address}: start one with `make web`")


def test_the_log_has_a_line_when_the_server_goes_and_when_it_is_back(start, triton, caplog):
    url = start().url

    def healths():
        return [httpx.get(f"{url}/healthz").status_code for _ in range(3)]

    assert healths() == [200] * 3
    triton.ready = False
    assert healths() == [503] * 3
    triton.ready = True
    assert healths() == [200] * 3
    triton.ready = False
    assert healths() == [503] * 3
    asked = {"prompt": "x", "size": "64x64"}
    triton.ready = True
    assert httpx.post(f"{url}/v1/images/generations", json=asked).status_code == 200
    away = f"{triton.url} is not ready: sd_ensemble is not loaded; there is sd_ensemble"
    back = "the server is ready again"
    assert caplog.messages == [away, back, away, back]


@pytest.mark.parametrize("path", ["/v1/nothing", "/sdapi/v1/nothing", "/api/nothing", "/nothing"])
def test_what_is_not_there_is_said_in_the_shape_of_the_api(gateway, path):
    answer = httpx.get(gateway.url + path)
    assert answer.status_code == 404
    shape = {"/v1": {"error"}, "/sd": {"error", "detail", "body", "errors"}}
    assert set(answer.json()) == shape.get(path[:3], {"message", "field"})


@pytest.mark.parametrize("path", ["/v1/images/generations", "/sdapi/v1/txt2img", PAGE])
def test_a_body_that_is_no_json_or_too_long(gateway, path):
    url = gateway.url + path
    for body in (b"", b"{", b"[]", b"\xff", b'{"prompt": "\\ud800"}'):
        headers = {"Content-Type": "application/json"}
        assert httpx.post(url, content=body, headers=headers).status_code in (400, 422)
    most = MAX_FILE_BODY if path.partition("?")[0] in FILES else MAX_BODY
    assert httpx.post(url, content=b" " * (most + 1)).status_code == 413

    def chunks():
        for _ in range(most // 10_000 + 2):
            yield b" " * 10_000

    assert httpx.post(url, content=chunks()).status_code == 413


def test_bodies_in_work_are_bounded_together(gateway, triton, monkeypatch):
    monkeypatch.setattr(access, "MAX_BODIES", 50_000)

    def ask(size=20_000):
        body = json.dumps({"prompt": "x"}).rjust(size).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{gateway.url}/v1/images/generations"
        return httpx.post(url, content=body, headers=headers, timeout=30)

    triton.hold.clear()
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(ask) for _ in range(2)]
        wait_for(lambda: len(triton.requests) == 2)
        refused = ask()
        assert refused.status_code == 429 and refused.headers["retry-after"] == "2"
        assert "too many bytes" in refused.json()["error"]["message"]
        held.append(pool.submit(ask, 9_000))
        wait_for(lambda: len(triton.requests) == 3)
        triton.hold.set()
        assert [one.result().status_code for one in held] == [200] * 3
    assert ask().status_code == 200


def test_a_page_elsewhere_cannot_have_a_browser_draw_here(start):
    """Neither by a form or a fetch that needs no leave, nor by a name that leads here."""
    gateway = start(hosts=LOOPBACK)
    url = f"{gateway.url}/v1/images/generations"
    body = json.dumps({"prompt": "x"})
    simple = httpx.post(url, content=body, headers={"Content-Type": "text/plain"})
    assert simple.status_code == 400
    assert httpx.get(gateway.url, headers={"Host": "evil.example"}).status_code == 400
    assert httpx.get(gateway.url, headers={"Host": "localhost.evil.example:80"}).status_code == 400
    for name in LOOPBACK:
        assert httpx.get(gateway.url, headers={"Host": f"{name}:7860"}).status_code == 200
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(url, headers=asked)
    assert "access-control-allow-origin" not in answer.headers


def test_a_host_that_is_allowed_and_one_that_is_not(start):
    gateway = start(hosts=[*LOOPBACK, "host.docker.internal"])
    for path, shape in (
        ("/v1/models", lambda said: said["error"]["message"]),
        ("/sdapi/v1/samplers", lambda said: said["detail"]),
        ("/api/usual", lambda said: said["message"]),
    ):
        url = gateway.url + path
        assert httpx.get(url, headers={"Host": "Host.Docker.Internal:7860"}).status_code == 200
        answer = httpx.get(url, headers={"Host": "elsewhere:7860"})
        assert answer.status_code == 400
        said = shape(answer.json())
        assert said.startswith("Host: got 'elsewhere:7860'; allowed: localhost, ")
        assert said.endswith("host.docker.internal; others by --allow-host")


def test_a_page_of_an_allowed_origin_may_ask(start):
    gateway = start(api_key="sesame", origins=["https://app.example"])
    url = f"{gateway.url}/v1/images/generations"
    for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization, content-type"
        before = httpx.options(url, headers=asked)
        assert (before.headers.get("access-control-allow-origin") == origin) is allowed
        key = {"Origin": origin, "Authorization": "Bearer sesame"}
        for answer in (
            httpx.post(url, json={"prompt": "x"}, headers=key),
            httpx.post(url, json={"prompt": "x"}, headers={"Origin": origin}),
        ):
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


@pytest.mark.parametrize("path", ["/v1/images/generations", "/sdapi/v1/txt2img", PAGE])
def test_what_is_wrong_with_a_body_is_said(gateway, path):
    def said(body, **headers):
        answer = httpx.post(gateway.url + path, content=body, headers=headers)
        assert answer.status_code == 400
        told = answer.json()
        return told.get("detail") or told.get("message") or told["error"]["message"]

    kind = {"Content-Type": "application/json"}
    assert said(b'{"prompt": "x",}', **kind).startswith("body: not JSON: ")
    assert said(b'{"prompt": "x",}', **kind).endswith("at character 16")
    assert said(b'{"prompt": "\xff"}', **kind) == "body: not JSON in UTF-8"
    assert said(b"", **kind) == "body: got nothing; allowed: a JSON object"
    assert said(b'["x"]', **kind) == "body: got a list; allowed: a JSON object"
    body = b'{"prompt": "x"}'
    assert said(body) == "Content-Type: got none; allowed: application/json"
    form = "application/x-www-form-urlencoded"
    assert said(body, **{"Content-Type": form}).startswith(f"Content-Type: got '{form}'; allowed: ")


@pytest.mark.parametrize(
    "flags",
    [
        ["--cors-origin", "app.example"],
        ["--max-pictures", "0"],
        ["--max-pictures", "x"],
        ["--allow-host", "proxy.example:7860"],
        ["--allow-host", "https://proxy.example"],
        ["--allow-host", "*"],
        ["--public-url", "example.com"],
        ["--public-url", "https:///art"],
        ["--public-url", "https://example.com/art?x=1"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
    ],
)
def test_options_that_make_no_sense(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["gateway", *flags])
    assert caught.value.code == 2
    assert flags[1] in capsys.readouterr().err


def test_the_page_of_the_api_shows_every_operation_and_needs_nothing_from_elsewhere(gateway):
    described = httpx.get(f"{gateway.url}/openapi.json").json()
    page = httpx.get(f"{gateway.url}/docs").text
    for path in described["paths"]:
        assert path in page
    assert "num_inference_steps" in page and "from 1 to 1000" in page
    assert "<td>null, &quot;auto&quot;, &quot;opaque&quot;, false, true</td>" in page
    assert "Draw <code>n</code> pictures" in page and "`" not in page
    assert not re.search(r'https?://(?!platform\.openai\.com)|<script(?! src="web/)', page)
