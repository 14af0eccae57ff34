"""The dashboard asks for what the metrics page has, and the docs tell all of it."""

import json
import re
from pathlib import Path

import pytest

from tests.server.calls import SMALL, get, request

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DASHBOARD = ROOT / "deploy" / "helm" / "triptych" / "files" / "grafana.json"
METRIC = re.compile(r'((?:nv|triptych)_\w+)(?:\{(\w+)(=~?)"([^"]*)"\})?')


@pytest.fixture
def page(calls, server):
    """The samples on the metrics page after a picture: (metric, its labels)."""
    calls.pictures(request(**SMALL))
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? ", get(f"{server.metrics}/metrics"), re.MULTILINE)
    return [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels))) for name, labels in lines]


def test_every_metric_that_the_dashboard_asks_for_is_there(page):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [
        found
        for panel in panels
        for target in panel["targets"]
        for found in METRIC.findall(target["expr"])
    ]
    assert len(panels) >= 10 and len(asked) >= len(panels)
    for metric, label, relation, value in asked:
        labels = [found for name, found in page if name == metric]
        assert labels, metric
        for wanted in value.split("|") if relation == "=~" else [value]:
            assert not label or any(found.get(label) == wanted for found in labels), (
                metric,
                wanted,
            )


def test_every_metric_of_the_loop_is_described(page):
    described = re.findall(r"^\| `(triptych_\w+)` \|", (DOCS / "metrics.md").read_text(), re.M)
    assert sorted(described) == sorted(name for name, _ in page if name.startswith("triptych_"))
