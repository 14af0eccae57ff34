"""The dashboard asks for what the metrics pages have, and the docs tell all of it."""

import json
import re
from pathlib import Path

import httpx
import pytest

from tests import dashboard
from tests.gateway.running import Gateway
from tests.server.calls import SMALL, get, request
from triptych.names import NETWORKS, Names

DOCS = Path(__file__).parents[2] / "docs"
SERVERS = ("nv_", "triptych_unet", "triptych_i", "triptych_s", "triptych_q")
SHOWN = {
    "Time of a picture": lambda names: {names.model},
    "Time of a run of a network": lambda names: set(map(names.stage, NETWORKS)),
    "Batch of a network": lambda names: set(map(names.stage, NETWORKS)),
    "Texts in a run of the text encoder": lambda names: {
        names.stage("text_encoder"),
        names.stage("text_encoder_2"),
    },
}
"""The panels that show some of what is served alone: the models and stages of these names."""


@pytest.fixture
def page(calls, server):
    """The samples on the metrics page after a picture."""
    calls.pictures(request(**SMALL))
    return dashboard.samples(get(f"{server.metrics}/metrics"))


def of_servers():
    return [one for prefix in SERVERS for one in dashboard.asked(prefix)]


def test_every_metric_of_a_server_that_the_dashboard_asks_for_is_there(page):
    assert {one.panel for one in of_servers()} >= SHOWN.keys()
    for one in of_servers():
        served = {found["model"] for name, found in page if name == one.metric and "model" in found}
        assert one.labels["instance"] == dashboard.INSTANCE, one
        chosen = one.chosen(page)
        assert chosen, one
        assert all(one.by <= {*labels, "instance"} for labels in chosen), one
        if "model" in one.labels:
            names = SHOWN[one.panel](Names()) & served
            assert names and {labels["model"] for labels in chosen} == names, one


def test_every_panel_shows_the_namespace_and_the_release_that_are_chosen():
    for one in dashboard.asked(""):
        assert one.labels.items() >= dashboard.OF_A_RELEASE.items(), one


def test_every_metric_of_a_server_that_an_alarm_asks_for_is_there(page):
    found = [one for prefix in SERVERS for one in dashboard.alarms(prefix)]
    assert len({one.panel for one in found}) >= 4
    for one in found:
        assert one.chosen(page), one


def test_panels_show_the_stages_of_every_model():
    models = Names(), Names("xl"), Names("my.ink-2")
    served = {name for names in models for name in names.all}
    selections = [one for one in of_servers() if "model" in one.labels]
    assert {one.panel for one in selections} == SHOWN.keys()
    for one in selections:
        chosen = {name for name in served if dashboard.fits(name, *one.labels["model"])}
        assert chosen == {name for names in models for name in SHOWN[one.panel](names)}, one


def test_every_metric_of_a_gateway_that_panels_and_alarms_ask_for_is_there(server):
    with Gateway(server.grpc) as gateway, httpx.Client(base_url=gateway.url) as web:
        asked = {"prompt": "x", "size": "64x64", "num_inference_steps": 1}
        assert web.post("/v1/images/generations", json=asked).status_code == 200
        page = dashboard.samples(web.get("/metrics").text)
    alarms = list(dashboard.alarms("triptych_gateway_"))
    assert len({one.panel for one in alarms}) >= 4
    for one in alarms:
        by_status = one.labels.pop("code", None)
        assert one.chosen(page) and (by_status is None or one.metric.endswith("_requests_total"))
    found = list(dashboard.asked("triptych_gateway_"))
    assert len({one.panel for one in found}) >= 3
    for one in found:
        chosen = one.chosen(page)
        assert chosen, one
        # Without keys there are no names, and Prometheus takes an empty one for none.
        assert all(one.by <= {*labels, "name"} for labels in chosen), one


def test_all_servers_are_shown_or_those_that_are_chosen():
    board = json.loads(dashboard.DASHBOARD.read_text())
    variables = {one["name"]: one for one in board["templating"]["list"]}
    inside = 'namespace=~"$namespace"'
    release = f'{inside},{dashboard.RELEASE}=~"$release"'
    for name, label, of in (
        ("namespace", "namespace", ""),
        ("release", dashboard.RELEASE, f"{{{inside}}}"),
        ("instance", "instance", f"{{{release}}}"),
    ):
        one = variables[name]
        assert (one["multi"], one["includeAll"], one["allValue"]) == (True, True, ".*")
        assert one["query"] == f"label_values(triptych_images_in_flight{of}, {label})"
    for panel in board["panels"]:
        for target in panel["targets"]:
            rates = len(re.findall(r"\brate\(", target["expr"]))
            summed = len(
                re.findall(r"\bsum (by \([^)]*\) )?\(rate\(|\bsum\(rate\(", target["expr"])
            )
            assert rates == summed, target["expr"]


@pytest.mark.parametrize("prefix", ["", "gateway_"])
def test_every_metric_is_described(page, server, prefix):
    described = re.findall(r"^\| `(triptych_\w+)` \|", (DOCS / "metrics.md").read_text(), re.M)
    if prefix:
        with Gateway(server.grpc) as gateway:
            text = httpx.get(f"{gateway.url}/metrics").text
        names = set(re.findall(r"^# TYPE (\w+)", text, re.M)) | {"triptych_gateway_webhooks_total"}
    else:
        names = {name for name, _ in page if name.startswith("triptych_")}
    ours = [name for name in described if name.startswith("triptych_gateway_") == bool(prefix)]
    assert sorted(ours) == sorted(names)
