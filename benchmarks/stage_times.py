"""Where the time of requests goes, by Triton's own statistics of each model."""

from __future__ import annotations

import tritonclient.grpc as grpcclient

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")

Snapshot = dict[str, dict[str, int]]
"""Of each model: nanoseconds of PARTS, and how many inferences there were in how many runs."""


def snapshot(client: grpcclient.InferenceServerClient) -> Snapshot:
    """What each model has spent so far, all its requests together."""
    models = client.get_inference_statistics().model_stats
    return {
        model.name: {
            **{part: getattr(model.inference_stats, part).ns for part in PARTS},
            "inferences": model.inference_count,
            "runs": model.execution_count,
        }
        for model in models
    }


def between(before: Snapshot, after: Snapshot, requests: int) -> dict[str, dict[str, float]]:
    """Seconds a request, of `requests` to the ensemble; models that had nothing to do left out."""
    spent = {
        model: {part: (after[model][part] - before[model][part]) / 1e9 / requests for part in PARTS}
        for model in after
    }
    return {model: parts for model, parts in spent.items() if any(parts.values())}


def batch(before: Snapshot, after: Snapshot, model: str) -> float:
    """Mean rows of a run of the model; NaN where it did not run."""
    inferences, runs = (after[model][what] - before[model][what] for what in ("inferences", "runs"))
    return inferences / runs if runs else float("nan")
