"""Our schedulers against diffusers' where an image starts from a picture that is put back."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers_reference import ENTRIES, PLAIN, trajectory_from_picture
from scheduler_run import DEMO, SD15, SD21, relative_error, run_from_picture

from triptych import schedulers
from triptych.denoise.noise import Noise
from triptych.errors import InvalidRequest

CLEAN = Noise(5).randn((2, 3, 5))
SEED = 1234
STRENGTHS = (0.2, 0.5, 0.8, 1.0)
FLAGS = (
    {},
    {"solver_order": 3, "use_lu_lambdas": False},
    {"solver_type": "heun"},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
    {"skip_prk_steps": False},
    {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
)


def compare(name, config, steps, strength):
    expected = trajectory_from_picture(name, config, steps, strength, CLEAN, SEED)
    ours = run_from_picture(name, config, steps, strength, CLEAN, SEED)
    return max(relative_error(*pair) for pair in zip(ours, expected))


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("config", [SD15, SD21], ids=["sd15", "sd21"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_latents_are_those_of_diffusers(name, config, strength):
    for steps in (5, 7, 20, 50):
        error = compare(name, config, steps, strength)
        assert error < (5e-4 if name.startswith("deis") else 1e-4), steps


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_with_other_values_in_the_file(name, flags):
    for strength in (0.35, 0.65, 0.9):
        error = compare(name, {**SD15, **flags}, 20, strength)
        assert error < (5e-4 if name.startswith("deis") else 1e-4), strength


@pytest.mark.parametrize("name", ENTRIES)
def test_with_the_demo_models_own_file(name):
    config = {**DEMO, "skip_prk_steps": True}
    assert compare(name, config, 20, 0.5) < (5e-4 if name.startswith("deis") else 1e-4)


@pytest.mark.parametrize("name", PLAIN)
def test_a_strength_too_small_for_a_step_is_refused(name):
    with pytest.raises(InvalidRequest, match=r"strength: got 0\.1; allowed: .* 9 steps"):
        schedulers.create(name, SD15, 9, strength=0.1)
    assert schedulers.create(name, SD15, 10, strength=0.1).begin < 20
    assert np.isfinite(run_from_picture(name, SD15, 10, 0.1, CLEAN, SEED)[1]).all()
