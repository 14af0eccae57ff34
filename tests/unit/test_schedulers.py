"""Schedulers against the latents that diffusers gave, and what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scheduler_run import DEMO, SD15, SD21, of_file, relative_error, run, run_from_picture

from triptych import schedulers
from triptych.denoise.noise import Noise
from triptych.errors import InvalidRequest
from triptych.schedulers.spread import beta_quantiles

SEED = 7  # of scripts/make_fixtures.py
SKIP_PRK = {"skip_prk_steps": True}


def recorded():
    with np.load(Path(__file__).parents[1] / "fixtures" / "schedulers.npz") as fixture:
        arrays = {key: fixture[key] for key in fixture.files}
    call = 0
    for number, (name, config, steps) in enumerate(json.loads(str(arrays["cases"]))):
        calls = len(schedulers.create(of_file(name, config), config, steps).timesteps)
        latents = arrays["latents"][call + number :][: calls + 1]
        timesteps = arrays["timesteps"][call:][:calls]
        call += calls
        expected = timesteps, arrays["sigmas"][number], arrays["inputs"][number], latents
        yield pytest.param(name, config, steps, expected, id=f"{name}-{number}")
    assert call == len(arrays["timesteps"])


@pytest.mark.parametrize("name, config, steps, expected", list(recorded()))
def test_latents_after_each_step_are_those_of_diffusers(name, config, steps, expected):
    timesteps, sigma, first_input, latents = expected
    start = Noise(SEED).randn(latents[0].shape) * np.float32(sigma)
    np.testing.assert_allclose(start, latents[0], rtol=0, atol=1e-6 * sigma)

    ours = run(name, config, steps, latents[0], SEED)
    np.testing.assert_allclose(ours[0], timesteps, rtol=1e-5, atol=1e-3)
    assert ours[1] == pytest.approx(sigma, rel=1e-6)
    assert relative_error(ours[2][:1], first_input[None]) < 1e-6
    assert relative_error(ours[3], latents) < 1e-4


def recorded_starts():
    with np.load(Path(__file__).parents[1] / "fixtures" / "starts.npz") as fixture:
        arrays = {key: fixture[key] for key in fixture.files}
    row = 0
    for name, config, steps, strength in json.loads(str(arrays["cases"])):
        scheduler = schedulers.create(name, config, steps, strength=strength)
        count = len(scheduler.timesteps) - scheduler.begin + 1
        expected, row = arrays["latents"][row : row + count], row + count
        yield pytest.param(name, config, steps, strength, arrays["clean"], expected, id=name)
    assert row == len(arrays["latents"])


@pytest.mark.parametrize("name, config, steps, strength, clean, expected", list(recorded_starts()))
def test_images_that_start_from_a_picture_are_those_of_diffusers(
    name, config, steps, strength, clean, expected
):
    """A half of the picture is put back after each step, as in inpainting."""
    latents = run_from_picture(name, config, steps, strength, clean, SEED)[1]
    assert relative_error(latents, expected) < (5e-4 if name.startswith("deis") else 1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_a_strength_too_small_for_a_step_is_refused(strength):
    with pytest.raises(InvalidRequest, match=f"strength: got {strength}; allowed: .* 9 steps"):
        schedulers.create("euler", SD15, 9, strength=strength)


@pytest.mark.parametrize("name", schedulers.NAMES)
@pytest.mark.parametrize("config", [SD15, SD21, {**DEMO, **SKIP_PRK}], ids=["sd15", "sd21", "demo"])
def test_all_is_float32_and_arguments_are_left_alone(name, config):
    scheduler = schedulers.create(name, config, 6)
    assert scheduler.timesteps.dtype == np.float32 and isinstance(scheduler.init_noise_sigma, float)
    noise = Noise(0)
    sample = noise.randn((4, 2, 2)) * np.float32(scheduler.init_noise_sigma)
    for i in range(len(scheduler.timesteps)):
        output = noise.randn(sample.shape)
        before = sample.copy(), output.copy()
        scaled = scheduler.scale_model_input(sample, i)
        following = scheduler.step(output, i, sample, noise.randn)
        assert scaled.dtype == following.dtype == np.float32
        assert not np.shares_memory(following, sample) and not np.shares_memory(following, output)
        np.testing.assert_array_equal(sample, before[0])
        np.testing.assert_array_equal(output, before[1])
        output.fill(np.nan)  # the caller may use its buffer again
        sample = following
    assert np.isfinite(sample).all()


@pytest.mark.parametrize("name", schedulers.NAMES)
def test_a_model_that_knows_the_answer_gets_there(name):
    """From any noise, where the model always predicts the same x_0."""
    levels = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    config = {**SKIP_PRK, **levels, "timestep_spacing": "trailing", "set_alpha_to_one": True}
    x0 = np.linspace(-0.9, 0.9, 32, dtype=np.float32).reshape(2, 4, 4)
    scheduler = schedulers.create(name, config, 20)
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    noise = Noise(3)
    sample = noise.randn(x0.shape) * np.float32(scheduler.init_noise_sigma)
    for i, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(sample, i)
        level = np.exp(np.interp(timestep, np.arange(1000), np.log(signal)))
        epsilon = ((seen - level**0.5 * x0) / (1 - level) ** 0.5).astype(np.float32)
        sample = scheduler.step(epsilon, i, sample, noise.randn)
    assert np.abs(sample - x0).max() < 0.05


def test_pndm_has_more_calls_than_steps():
    assert len(schedulers.create("pndm", SD15, 20).timesteps) == 21
    assert len(schedulers.create("pndm", SD15, 1).timesteps) == 1
    assert len(schedulers.create("pndm", {}, 20).timesteps) == 29


@pytest.mark.parametrize("name", ["heun", "dpm2", "dpm2_ancestral"])
def test_two_calls_a_step_but_for_the_last(name):
    assert len(schedulers.create(name, SD15, 20).timesteps) == 39
    assert len(schedulers.create(name, SD15, 1).timesteps) == 1


@pytest.mark.parametrize(
    "name",
    ["ddpm", "euler_ancestral", "dpm2_ancestral", "dpmpp_2m_sde", "dpmpp_2s_sde", "lcm", "tcd"],
)
def test_the_seed_matters_where_noise_is_drawn(name):
    start = np.ones((4, 2, 2), np.float32)
    one, other = (run(name, SD15, 4, start, seed)[3][-1] for seed in (1, 2))
    assert relative_error(one[None], other[None]) > 0.01


def test_trailing_never_asks_below_the_first_timestep():
    """Rounding in arange would give 62 timesteps, the last of them -1."""
    timesteps = schedulers.create("ddim", {"timestep_spacing": "trailing"}, 61).timesteps
    assert len(timesteps) == 61 and timesteps[-1] == 15


def test_names():
    for name in schedulers.NAMES:
        assert schedulers.resolve(name) == name
    assert schedulers.resolve("DPMSolverMultistepScheduler") == "dpmpp_2m"
    for config in (SD15, SD21):
        name = schedulers.default_name(config)
        assert name == schedulers.resolve(config["_class_name"])
    karras = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    assert schedulers.default_name(karras) == "dpmpp_2m_karras"
    assert schedulers.default_name({**karras, "use_karras_sigmas": False}) == "dpmpp_2m"
    sde = {**karras, "algorithm_type": "sde-dpmsolver++"}
    assert schedulers.default_name(sde) == "dpmpp_2m_sde_karras"
    with pytest.raises(ValueError, match=r"scheduler: got 'restart'; allowed: ddim, ddpm"):
        schedulers.resolve("restart")
    with pytest.raises(ValueError, match=r"_class_name: got null; allowed: DDIMScheduler"):
        schedulers.default_name({})
    with pytest.raises(ValueError, match="_class_name: got a list"):
        schedulers.default_name({"_class_name": ["DDIMScheduler"]})


def test_a_short_name_means_the_same_whatever_the_file_has():
    """A class name alone means what diffusers' from_config makes of the file."""
    karras = {**SD15, "use_karras_sigmas": True}
    sde = {**karras, "algorithm_type": "sde-dpmsolver++"}
    start = np.ones((4, 2, 2), np.float32)

    def drawn(name, config):
        scheduler = schedulers.create(name, config, 4)
        noise, latents = Noise(SEED), start
        for i, _ in enumerate(scheduler.timesteps):
            latents = scheduler.step(start * i, i, latents, noise.randn)
        return latents.tobytes()

    for entry in schedulers.TABLE:
        of_class = sde if entry.diffusers == "DPMSolverMultistepScheduler" else karras
        assert drawn(entry.name, SD15) == drawn(entry.name, of_class)
    for name, meant in (
        ("DPMSolverMultistepScheduler", "dpmpp_2m_sde_karras"),
        ("EulerDiscreteScheduler", "euler_karras"),
        ("DDIMScheduler", "ddim"),
    ):
        assert schedulers.resolve(name, sde) == meant
        assert drawn(name, sde) == drawn(meant, SD15)


def test_eta_is_new_noise():
    start = np.ones((4, 2, 2), np.float32)
    for name, own in (("ddim", 0), ("tcd", 0.3)):
        latents = {eta: run(name, SD15, 4, start, SEED, eta)[3] for eta in (None, 0, 0.3, 1)}
        assert (latents[None] == latents[own]).all()
        for one, other in ((0, 0.3), (0.3, 1)):
            assert relative_error(latents[one][2:3], latents[other][2:3]) > 0.01
    in_file = schedulers.create("ddim", {**SD15, "eta": 1.0}, 4)
    assert in_file.step(start, 0, start, None).shape == start.shape  # without noise
    with pytest.raises(InvalidRequest, match="none, but with scheduler ddim or tcd") as caught:
        schedulers.create("euler", SD15, 4, eta=0.0)
    assert caught.value.field == "eta"


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip_sample", [True, False])
def test_with_an_eta_of_1_ddim_is_ddpm(prediction_type, clip_sample):
    """Section 4.1 of the DDIM paper; not where x_0 is clipped, after which the noise is not."""
    config = {"prediction_type": prediction_type, "clip_sample": clip_sample}
    start = Noise(SEED).randn((4, 2, 2))
    ddim, ddpm = (
        run("ddim", config, 20, start, SEED, 1)[3],
        run("ddpm", config, 20, start, SEED)[3],
    )
    assert (relative_error(ddim, ddpm) < 1e-5) == (not clip_sample)


def test_an_entry_of_the_table_is_all_that_a_scheduler_needs():
    """Its names are its own, and its diffusers class and options lead back to it."""
    labels = [entry.label.lower() for entry in schedulers.TABLE]
    assert len(set(labels)) == len(set(schedulers.NAMES)) == len(schedulers.TABLE)
    for entry in schedulers.TABLE:
        config = {"_class_name": entry.diffusers, **entry.options}
        assert schedulers.default_name(config) == entry.name
        assert isinstance(schedulers.create(entry.name, {}, 4), entry.implementation)


def test_the_documents_list_every_scheduler():
    folder = Path(schedulers.__file__).parents[2]
    plain = [entry for entry in schedulers.TABLE if entry.schedule is None]
    with_schedules = {entry.sampler for entry in schedulers.TABLE if entry.schedule}

    lines = (folder / "docs" / "requests.md").read_text().splitlines()
    (row,) = (line for line in lines if line.startswith("| `scheduler`"))
    assert re.findall(r"`(\w+)`", row.split("|")[3]) == [
        *(entry.name for entry in plain),
        *("_karras", "_exponential", "_beta"),
    ]

    parts = (folder / "docs" / "schedulers.md").read_text().split("\n\n")
    (table,) = (part for part in parts if part.startswith("| name | in diffusers |"))
    rows = [line.split("|")[1:5] for line in table.splitlines()[2:]]
    assert [tuple(cell.strip(" `") for cell in row) for row in rows] == [
        (*(entry.name, entry.diffusers, entry.sampler), "yes" * (entry.sampler in with_schedules))
        for entry in plain
    ]


@pytest.mark.parametrize(
    "entry", [entry for entry in schedulers.TABLE if entry.options], ids=lambda entry: entry.name
)
def test_a_name_says_what_the_configuration_could(entry):
    start = np.ones((4, 2, 2), np.float32)
    by_name = run(entry.name, SD15, 8, start, 1)
    class_name = schedulers.resolve(entry.diffusers)
    by_config = run(class_name, {**SD15, **entry.options}, 8, start, 1)
    plain = run(class_name, SD15, 8, start, 1)
    np.testing.assert_array_equal(by_name[3], by_config[3])
    assert relative_error(by_name[3], plain[3]) > 0.01


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2s"])
def test_a_file_of_deis_means_the_default_elsewhere(name):
    start = np.ones((4, 2, 2), np.float32)
    of_deis = run(name, {**SD15, "algorithm_type": "deis", "solver_type": "logrho"}, 6, start, 1)
    np.testing.assert_array_equal(of_deis[3], run(name, SD15, 6, start, 1)[3])


def test_a_request_may_say_the_spacing():
    by_request = schedulers.create("euler", SD15, 4, "trailing").timesteps
    assert by_request.tolist() == [999, 749, 499, 249]
    in_file = {**SD15, "timestep_spacing": "trailing"}
    np.testing.assert_array_equal(by_request, schedulers.create("euler", in_file, 4).timesteps)
    by_request = schedulers.create("euler", in_file, 4, "linspace").timesteps
    assert by_request.tolist() == [999, 666, 333, 0]
    for name in ("lcm", "tcd", "dpmpp_2s_karras"):
        with pytest.raises(InvalidRequest, match=rf"none with scheduler {name}") as caught:
            schedulers.create(name, SD15, 4, "trailing")
        assert caught.value.field == "timestep_spacing"


def test_beta_quantiles():
    """Against those of scipy.stats.beta."""
    probabilities = [0, 1e-6, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.99, 1]
    quantiles = [
        *(0, 1.855882462e-10, 1.855873851745199e-05, 0.0008612388215429059),
        *(0.03958440558878085, 0.23401700387523572, 0.5, 1 - 0.23401700387523572),
        *(1 - 0.0008612388215429059, 1),
    ]
    np.testing.assert_allclose(beta_quantiles(probabilities), quantiles, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    "name, config, key, allowed",
    [
        ("ddim", {"thresholding": True}, "thresholding", "false, for scheduler ddim"),
        ("ddim", {"prediction_type": "flow"}, "prediction_type", "'v_prediction'"),
        ("ddim", {"clip_sample": 1}, "clip_sample", "true or false"),
        ("ddim", {"timestep_spacing": "log"}, "timestep_spacing", "'trailing'"),
        ("ddim", {"beta_schedule": "sigmoid"}, "beta_schedule", "'scaled_linear'"),
        ("ddim", {"beta_start": "0.1"}, "beta_start", "a number from"),
        ("ddim", {"num_train_timesteps": 0}, "num_train_timesteps", "an integer from 2"),
        ("ddim", {"steps_offset": True}, "steps_offset", "an integer from 0"),
        ("ddim", {"trained_betas": [0.1, 0.2]}, "trained_betas", "1000 of them"),
        ("ddim", {"trained_betas": ["x"]}, "trained_betas", "null or a list"),
        ("pndm", {**SKIP_PRK, "prediction_type": "sample"}, "prediction_type", "'epsilon' or"),
        ("euler_ancestral", {"prediction_type": "sample"}, "prediction_type", "'epsilon' or"),
        ("ddpm", {"variance_type": "learned"}, "variance_type", "'fixed_large'"),
        ("ddpm", {"variance_type": "fixed_large_log"}, "variance_type", "'fixed_large'"),
        ("dpm2", {"prediction_type": "sample"}, "prediction_type", "'epsilon' or"),
        ("heun", {"beta_schedule": "exp"}, "beta_schedule", "'scaled_linear'"),
        (
            "LMSDiscreteScheduler",
            {"use_karras_sigmas": True, "use_beta_sigmas": True},
            "use_beta_sigmas",
            "false, with use_karras",
        ),
        ("deis", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type", "'deis' or"),
        ("dpmpp_2s", {"thresholding": True}, "thresholding", "false"),
        ("tcd", {"rescale_betas_zero_snr": True}, "prediction_type", "v_prediction or sample"),
        ("euler", {"timestep_type": "continuous"}, "timestep_type", "'discrete'"),
        ("euler", {"interpolation_type": "log_linear"}, "interpolation_type", "'linear'"),
        ("euler", {"sigma_max": 700.0}, "sigma_max", "null"),
        ("euler", {"final_sigmas_type": "one"}, "final_sigmas_type", "'sigma_min'"),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver"}, "algorithm_type", "'dpmsolver\\+\\+'"),
        ("dpmpp_2m", {"solver_order": 4}, "solver_order", "2 or 1 or 3"),
        ("dpmpp_2m", {"use_lu_lambdas": True}, "use_lu_lambdas", "false"),
        ("dpmpp_2m", {"lambda_min_clipped": 3}, "lambda_min_clipped", "from -inf to 0"),
        ("dpmpp_2m", {"variance_type": "learned"}, "variance_type", "null"),
        ("dpmpp_2m_karras", {"use_flow_sigmas": True}, "use_flow_sigmas", "dpmpp_2m_karras"),
        ("unipc", {"predict_x0": False}, "predict_x0", "true"),
        ("unipc", {"lower_order_final": False}, "lower_order_final", "true"),
        ("unipc", {"solver_type": "euler"}, "solver_type", "'bh2'"),
        ("lcm", {"original_inference_steps": 2000}, "original_inference_steps", "1 to 1000"),
        (
            "lcm",
            {"rescale_betas_zero_snr": True},
            "prediction_type",
            "v_prediction or sample",
        ),
    ],
)
def test_a_value_that_is_not_served_is_named(name, config, key, allowed):
    with pytest.raises(InvalidRequest, match=allowed) as caught:
        schedulers.create(name, config, 10)
    assert caught.value.field == key


@pytest.mark.parametrize(
    "name, config, steps, allowed",
    [
        *((name, SD15, 0, "1 to 1000") for name in schedulers.NAMES),
        *((name, SD15, 1001, "1 to 1000") for name in schedulers.NAMES),
        ("ddim", SD15, 2.0, "1 to 1000"),
        ("ddim", SD15, 1000, "the first timestep would be 1000, the last is 999"),
        ("pndm", {}, 3, "at least 4"),
        ("lcm", SD15, 51, "1 to 50"),
        ("tcd", SD15, 51, "1 to 50"),
        ("unipc", {"timestep_spacing": "leading"}, 1000, "fewer: leading spacing"),
        ("dpmpp_2m", {}, 1000, "fewer: linspace spacing"),
    ],
)
def test_a_number_of_steps_that_cannot_be_made_is_named(name, config, steps, allowed):
    with pytest.raises(InvalidRequest, match=allowed) as caught:
        schedulers.create(name, config, steps)
    assert caught.value.field == "num_inference_steps"
