"""Gateways on free ports, in front of a stand-in for Triton, and the page of one in a browser."""

from __future__ import annotations

import contextlib
import json
import logging

import httpx
import pytest
import webuiapi

from tests.gateway import browser as chromium
from tests.gateway import firefox
from tests.gateway.fake_triton import FakeTriton
from tests.gateway.page import Page
from tests.gateway.running import Gateway, wait_for
from triptych.gateway import access_log

# Of calls that name none: httpx gives up after 5 s, which a busy machine may need for an answer.
httpx._config.DEFAULT_TIMEOUT_CONFIG.read = 30

BROWSERS = {
    "chromium": (chromium.missing, chromium.Browser),
    "firefox": (firefox.missing, firefox.Firefox),
}


def pytest_addoption(parser):
    parser.addoption("--browser", choices=BROWSERS, default="chromium", help="for the page's tests")


@pytest.fixture(scope="session")
def _triton():
    with FakeTriton() as fake:
        yield fake


@pytest.fixture(scope="session")
def _gateway(_triton):
    with Gateway(_triton.url) as gateway:
        yield gateway


@pytest.fixture
def triton(_triton):
    """The stand-in, as it does by itself."""
    yield _triton
    _triton.forget()


@pytest.fixture
def gateway(_gateway, triton):
    """A gateway in front of it, without options."""
    return _gateway


@pytest.fixture
def webui(gateway):
    """A client of the gateway's WebUI, without a library."""
    with httpx.Client(base_url=f"{gateway.url}/sdapi/v1", timeout=60) as client:
        yield client


@pytest.fixture
def webui_api(gateway):
    address = httpx.URL(gateway.url)
    return webuiapi.WebUIApi(host=address.host, port=address.port, sampler="DDIM", steps=4)


@pytest.fixture
def start(triton):
    """`start(**options)`: a gateway of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Gateway(triton.url, **options))
        triton.hold.set()


@pytest.fixture
def lines():
    """`lines(n)`: the access log's lines as objects, as soon as there are so many."""

    class Kept(logging.Handler):
        def emit(self, record):
            written.append(json.loads(record.getMessage()))

    def come(number):
        wait_for(lambda: len(written) >= number)
        return written

    written, handler = [], Kept()
    access_log.log.addHandler(handler)
    access_log.log.setLevel(logging.INFO)
    yield come
    access_log.log.removeHandler(handler)
    access_log.log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def one_browser(request, tmp_path_factory):
    missing, kind = BROWSERS[request.config.getoption("browser")]
    if missing():
        pytest.skip(missing())
    with kind(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(one_browser):
    """The one browser, as large and as light as at first, whatever the last test made of it."""
    one_browser.look_like()
    return one_browser


@pytest.fixture
def page(browser, gateway, triton):
    page = Page(browser, gateway.url)
    wait_for(lambda: page["scheduler"].get_property("value") == "pndm")
    wait_for(lambda: page["start-field"].is_displayed())
    yield page
    triton.hold.set()
    # The browser notes each answer of a status from 400 itself.
    status = "the server responded with a status of"
    assert [text for text in browser.complaints() if status not in text] == []
    assert [url for url in browser.requested() if not url.startswith(page.own)] == []
