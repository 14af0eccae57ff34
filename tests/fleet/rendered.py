"""In .venv-fleet: the chart with the values on standard input, as JSON on standard output.

Its objects, and the notes that Helm shows. All is checked on its way: the chart by Helm's lint,
objects by Kubernetes' schema without fields of other names, KEDA's and the Prometheus operator's by
their models, alarms by PromQL's grammar. What is wrong is raised.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path

import helm_python
import kubernetes_validate
import promql_parser
import yaml

KUBERNETES = ("1.30", "1.37")
"""The oldest that the chart is for, and the newest whose schemas there are."""

OTHERS = {
    ("keda.sh/v1alpha1", "ScaledObject"): "cloudcoil.models.keda.v1alpha1",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PodMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "cloudcoil.models.prometheus_operator.v1",
}
"""Where their models are. To import one takes seconds."""

BEHAVIORS = ("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower")
"""Of ScaledObject's `fallback`, since KEDA 2.17: the newest models for Python 3.11 are of 2.16."""


def rendered(chart: Path, values: dict) -> dict:
    """`objects`, all of them valid, and `notes`."""
    found = helm_python.lint(str(chart), values, strict=True)
    assert not found["errors"], found
    with helm_python.Chart.load(str(chart)) as loaded:
        texts = loaded.render(values, name="pictures", namespace="drawing")
    notes = texts.pop("triptych/templates/NOTES.txt")
    objects = [one for text in texts.values() for one in yaml.safe_load_all(text) if one]
    for one in objects:
        check(one)
    return {"objects": objects, "notes": notes}


def check(one: dict) -> None:
    """Raise for an object that its API would not take."""
    models = OTHERS.get((one["apiVersion"], one["kind"]))
    if models is None:
        for version in KUBERNETES:
            kubernetes_validate.validate(one, version, strict=True)
        return
    if one["kind"] == "ScaledObject":
        one = copy.deepcopy(one)
        assert one["spec"]["fallback"].pop("behavior") in BEHAVIORS
    if one["kind"] == "PrometheusRule":
        for group in one["spec"]["groups"]:
            for rule in group["rules"]:
                promql_parser.parse(rule["expr"])
    model = getattr(importlib.import_module(models), one["kind"])
    # What the model does not know it drops.
    known = model.model_validate(one).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert known == one, f"{known} instead of {one}"


if __name__ == "__main__":
    print(json.dumps(rendered(Path(sys.argv[1]), yaml.safe_load(sys.stdin))))
