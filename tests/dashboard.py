"""What the dashboard's panels, and the docs' alarms, ask Prometheus for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "deploy" / "helm" / "triptych" / "files" / "grafana.json"
ALARMS = ROOT / "docs" / "production.md"
RELEASE = "app_kubernetes_io_instance"
INSTANCE = ("=~", "$instance")
OF_A_RELEASE = {"namespace": ("=~", "$namespace"), RELEASE: ("=~", "$release")}
CHOSEN = (INSTANCE, *OF_A_RELEASE.values())
"""On the dashboard. Prometheus gives each sample these labels, by where it came from; without
Kubernetes none has a namespace or a release.
"""

_METRIC = re.compile(r"((?:nv|triptych|envoy)_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)(=~|!~|=)"([^"]*)"')


@dataclass(frozen=True)
class Asked:
    """A metric in a panel. `labels`: (relation, pattern) by name; `by`: what the panel tells by."""

    panel: str
    metric: str
    labels: dict[str, tuple[str, str]]
    by: frozenset[str]

    def chosen(self, samples: list[tuple[str, dict[str, str]]]) -> list[dict[str, str]]:
        """The labels of those samples that Prometheus would take, wherever they came from."""
        own = {name: how for name, how in self.labels.items() if how not in CHOSEN}
        return [
            found
            for metric, found in samples
            if metric == self.metric
            and all(fits(found.get(name, ""), *how) for name, how in own.items())
        ]


def asked(prefix: str) -> Iterator[Asked]:
    """All metrics of the panels whose names begin so."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            shown = re.findall(r"{{(\w+)}}", target["legendFormat"])
            yield from _asked(prefix, panel["title"], target["expr"], shown)


def alarms(prefix: str) -> Iterator[Asked]:
    """The same of the alarms."""
    for title, expression in re.findall(r"^\| (.*?) \| `(.*?)` \|", ALARMS.read_text(), re.M):
        yield from _asked(prefix, title, expression, ())


def _asked(prefix: str, title: str, expression: str, shown: Iterable[str]) -> Iterator[Asked]:
    """`shown`: the labels that the panel shows."""
    told = ",".join(re.findall(r"\bby \(([^)]*)\)", expression))
    by = frozenset(re.findall(r"\w+", told)) | {*shown}
    for metric, labels in _METRIC.findall(expression):
        if metric.startswith(prefix):
            found = {name: (how, text) for name, how, text in _LABEL.findall(labels)}
            yield Asked(title, metric, found, by)


def samples(page: str) -> list[tuple[str, dict[str, str]]]:
    """Those on a metrics page: (metric, its labels)."""
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? ", page, re.MULTILINE)
    return [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels))) for name, labels in lines]


def fits(value: str, relation: str, pattern: str) -> bool:
    """Whether a label fits; Prometheus' patterns match the whole of it."""
    if relation == "=":
        return value == pattern
    return bool(re.fullmatch(pattern, value)) == (relation == "=~")
