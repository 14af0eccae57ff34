"""Served pictures against those of diffusers' pipeline with the weights that are served.

The weights are read back from the repository: the checkout's, or the one that the environment
variable TRIPTYCH_TEST_REPOSITORY names. The server runs in .venv, as `make serve` runs it.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers_reference import PLAIN, made

from tests.server.calls import Calls, pixels, request
from triptych.picture.metadata import read_settings
from triptych.server.running import RunningServer
from triptych_export.picture import psnr
from triptych_export.rebuild import pipeline

CHECKOUT = Path(__file__).parents[2]
REPOSITORY = Path(os.environ.get("TRIPTYCH_TEST_REPOSITORY", CHECKOUT / "model_repository"))
LEAST = 40.0
"""Decibels; rounding to 8 bits alone leaves about 59."""

SHORT = {"prompt": "a red circle left of a green star", "negative_prompt": "blue"}
LONG = {
    "prompt": "a yellow sun over green hills at sunset, " * 20,
    "negative_prompt": "a purple heart on a brown background and " * 20,
}
STEPS = 7
SIZES = ((256, 256), (128, 192), (192, 192))
GUIDANCE = (1.0, 7.5)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "server.log"
    with RunningServer(REPOSITORY, log, python=str(CHECKOUT / ".venv/bin/python")) as server:
        made = Calls(server.grpc)
        yield made
        made.close()


@pytest.fixture(scope="module")
def reference():
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(os.cpu_count())
    made = pipeline(REPOSITORY)
    made.set_progress_bar_config(disable=True)
    made.own_scheduler = made.scheduler
    return made


def drawn(reference, name: str | None, seed: int, **settings) -> np.ndarray:
    """diffusers' picture, uint8 [height, width, 3]; `name` is the scheduler's, None its own."""
    reference.scheduler = reference.own_scheduler
    if name is not None:
        reference.scheduler = made(name, reference.own_scheduler.config)
    generator = torch.Generator("cpu").manual_seed(seed)
    eta = 0.3 if name == "tcd" else 0.0
    return np.asarray(reference(generator=generator, eta=eta, **settings).images[0])


@pytest.mark.parametrize("name", [*PLAIN, "dpmpp_2m_karras", "euler_exponential", "unipc_beta"])
def test_every_scheduler_size_and_guidance(calls, reference, name):
    worst = []
    for number, (size, guidance) in enumerate(itertools.product(SIZES, GUIDANCE)):
        settings = {
            **(LONG if number % 3 == 2 else SHORT),
            "height": size[0],
            "width": size[1],
            "guidance_scale": guidance,
            "num_inference_steps": STEPS,
            "seed": 1000 + number,
        }
        (file,) = calls.pictures(request(**settings, scheduler=name))
        worst.append((psnr(pixels(file), drawn(reference, name, **settings)), size, guidance))
        warned = [line.split()[0] for line in read_settings(file).warnings]
        cut_off = ["prompt", "negative_prompt"] if number % 3 == 2 else []
        unused = ["negative_prompt"] if guidance == 1 else []
        assert warned == cut_off + unused
    print(f"{name}: at least {min(worst)[0]:.1f} dB")
    assert min(worst)[0] >= LEAST, worst


def test_a_prompt_alone_gives_the_models_own_picture(calls, reference):
    """All that the server chooses by itself is in the picture's settings."""
    (file,) = calls.pictures(b"a large white cross on a purple background")
    told = read_settings(file)
    names = ("prompt", "num_inference_steps", "guidance_scale", "height", "width", "seed")
    settings = {name: getattr(told, name) for name in names}
    assert told.scheduler == "dpmpp_2m"
    assert psnr(pixels(file), drawn(reference, None, **settings)) >= LEAST


def test_another_seed_is_another_picture(calls, reference):
    """So that a high figure above says something."""
    settings = {**SHORT, "num_inference_steps": STEPS, "height": 128, "width": 128}
    (file,) = calls.pictures(request(**settings, seed=1))
    assert psnr(pixels(file), drawn(reference, None, seed=2, **settings)) < LEAST - 5
