"""Noise against recorded values of torch's CPU generator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from triptych.denoise.noise import Noise
from triptych.errors import InvalidRequest


def test_the_stream_is_that_of_torch():
    """Seeds of 64 bits and negative ones; sizes below 16, of 16 and between its multiples."""
    with np.load(Path(__file__).parents[1] / "fixtures" / "noise.npz") as fixture:
        seeds, shapes = (json.loads(str(fixture[key])) for key in ("seeds", "shapes"))
        values = fixture["values"]
    for seed in seeds:
        noise = Noise(seed)
        for shape in shapes:
            ours = noise.randn(tuple(shape))
            theirs, values = np.split(values, [ours.size])
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs.reshape(shape), rtol=0, atol=1e-6)
    assert not values.size


def test_latents_of_stable_diffusion():
    """A 512x512 picture with seed 0 starts from torch's -1.1258, -1.1524, -0.2506, ..."""
    ours = Noise(0).randn((1, 4, 64, 64))
    np.testing.assert_allclose(ours[0, 0, 0, :3], [-1.1258, -1.1524, -0.2506], atol=5e-5)
    assert abs(ours.mean()) < 0.02 and abs(ours.std() - 1) < 0.02


def test_streams_are_independent():
    one, other = Noise(5), Noise(5)
    first = one.randn((4, 4, 4))
    Noise(6).randn((4, 4, 4))
    np.testing.assert_array_equal(first, other.randn((4, 4, 4)))
    assert (one.randn((4, 4, 4)) != first).all()


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.0, True, "1", None])
def test_a_seed_that_torch_refuses_is_named(seed):
    with pytest.raises(InvalidRequest, match="seed: got"):
        Noise(seed)
