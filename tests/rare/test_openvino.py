"""A server whose UNet and VAE run under OpenVINO in bfloat16, beside single precision."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.openvino import on_intel
from tests.server.repositories import MODELS, linked
from triptych.client import Client
from triptych.pipeline import Pipeline
from triptych.server.running import RunningServer
from triptych_export.cli import main

pytestmark = on_intel
NETWORKS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
REQUESTS = (
    {"prompt": "a red circle on a blue background"},
    {"prompt": "a yellow sun over green hills at sunset", "num_inference_steps": 8},
    {"prompt": "a green square", "height": 192, "width": 320},
    {"prompt": "a large blue circle", "loras": [{"name": "outlines", "scale": 1.0}]},
    {"prompt": "a white star on a black background", "cache_interval": 3},
    {"prompt": "a moon over the sea", "scheduler": "euler_ancestral", "guidance_scale": 1.0},
)
LEAST = 40.0
"""Decibels: 255 squared over the mean square of the difference."""


@pytest.fixture(scope="module")
def on_openvino(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    repository = linked(folder / "models", MODELS)
    for model in NETWORKS:
        (repository / model).unlink()
        shutil.copytree(MODELS / model, repository / model)
    assert main(["--output", str(repository), "--cpu-accelerator", "openvino-bf16"]) == 0
    with RunningServer(repository, folder / "server.log") as server:
        yield server


def test_the_log_says_what_runs_each_network(on_openvino):
    log = on_openvino.log.read_text(errors="replace")
    for model in NETWORKS:
        runs_on = "OpenVINOExecutionProvider in bfloat16"
        if model == "text_encoder":
            runs_on = "CPUExecutionProvider in single precision"
        assert f"{model}: runs on {runs_on} (" in log


def test_its_pictures_are_those_of_single_precision_to_40_db(on_openvino):
    pipeline = Pipeline(MODELS)
    with Client(on_openvino.grpc) as client:
        for seed, settings in enumerate(REQUESTS):
            found = np.asarray(client.generate(**settings, seed=seed).image, float)
            expected = pipeline.pixels(json.dumps({**settings, "seed": seed}))
            error = ((found - expected) ** 2).mean()
            assert 0 < error <= 255**2 / 10 ** (LEAST / 10), (settings, error)
