"""The dashboard asks for what the metrics page has, and the docs tell all of it."""

import json
import re
from pathlib import Path

import pytest

from tests.server.calls import SMALL, get, request
from triptych.names import NETWORKS, Names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DASHBOARD = ROOT / "deploy" / "helm" / "triptych" / "files" / "grafana.json"
METRIC = re.compile(r'((?:nv|triptych)_\w+)(?:\{model([=!]~)"([^"]*)"\})?')
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
    """The samples on the metrics page after a picture: (metric, its labels)."""
    calls.pictures(request(**SMALL))
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? ", get(f"{server.metrics}/metrics"), re.MULTILINE)
    return [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels))) for name, labels in lines]


def asked():
    """What the panels ask for: (title, metric, relation, pattern), the latter empty for all."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            found = METRIC.findall(target["expr"])
            assert target["expr"].count("{") == sum(bool(relation) for _, relation, _ in found)
            yield from ((panel["title"], *each) for each in found)


def chosen(served, relation, pattern):
    """Those of the names that Prometheus chooses, whose patterns match the whole of a name."""
    return {name for name in served if bool(re.fullmatch(pattern, name)) == (relation == "=~")}


def test_every_metric_that_the_dashboard_asks_for_is_there(page):
    panels = {title for title, *_ in asked()}
    assert len(panels) >= 10 and panels >= SHOWN.keys()
    for title, metric, relation, pattern in asked():
        labels = [found for name, found in page if name == metric]
        assert labels, metric
        if relation:
            served = {found["model"] for found in labels}
            names = SHOWN[title](Names()) & served
            assert names and chosen(served, relation, pattern) == names, (title, metric)


def test_panels_show_the_stages_of_every_model():
    models = Names(), Names("xl"), Names("my.ink-2")
    served = {name for names in models for name in names.all}
    selections = [(title, *how) for title, _, *how in asked() if how[0]]
    assert {title for title, *_ in selections} == SHOWN.keys()
    for title, relation, pattern in selections:
        wanted = {name for names in models for name in SHOWN[title](names)}
        assert chosen(served, relation, pattern) == wanted, title


def test_every_metric_of_the_loop_is_described(page):
    described = re.findall(r"^\| `(triptych_\w+)` \|", (DOCS / "metrics.md").read_text(), re.M)
    assert sorted(described) == sorted(name for name, _ in page if name.startswith("triptych_"))
