import dataclasses
import time

import numpy as np
import pytest
from scheduler_run import PREDICTIONS

from triptych import schedulers
from triptych.denoise.conditioning import of_prompts
from triptych.denoise.denoising import Denoising, guidance_embedding
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.noise import Noise
from triptych.denoise.start import Start
from triptych.errors import Expired, InvalidRequest, NotFinite
from triptych.model_files import ModelFiles
from triptych.settings import Settings

CONFIG = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
MODEL_FILES = ModelFiles(height=64, width=64, scheduler_config=CONFIG)
SETTINGS = Settings("a circle", "", 5, 7.5, 42, 64, 96, "ddim", "png")
RANDOM = np.random.default_rng(0)
PROMPT, NEGATIVE = RANDOM.standard_normal((2, 7, 16), dtype=np.float32)


def image(prompt=PROMPT, negative=NEGATIVE, model_files=MODEL_FILES, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return Denoising(settings, *of_prompts(prompt, negative), model_files)


def embeds(image):
    return [row["encoder_hidden_states"] for row in image.conditioning]


def predict(sample, timestep, conditioning):
    """Each row by itself: a smooth function of its latents, timestep and embeddings."""
    scale = (1 + timestep / 1000)[:, None, None, None]
    means = np.mean(conditioning["encoder_hidden_states"], axis=(1, 2))
    return np.tanh(sample) * scale + 0.1 * means[:, None, None, None]


def denoise(*images, max_rows=32, predict_noise=predict):
    results = DenoisingLoop(predict_noise, max_rows).run_to_end(images)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def test_latents_begin_as_the_seeds_noise_times_the_schedulers_sigma():
    noise = Noise(42).randn((4, 8, 12))
    assert np.array_equal(image().latents, noise)
    euler = image(scheduler="euler")
    sigma = schedulers.create("euler", CONFIG, 5).init_noise_sigma
    assert sigma > 10
    np.testing.assert_allclose(euler.latents, noise * sigma, rtol=1e-6)
    assert euler.latents.dtype == np.float32


def test_the_spacing_of_the_timesteps_may_be_the_requests():
    asked = image(scheduler="ddim", timestep_spacing="trailing", num_inference_steps=4)
    assert asked.timestep == 999
    assert image(scheduler="ddim", num_inference_steps=4).timestep == 751


def test_rescaled_guidance_has_the_deviation_of_the_prompts_own_output():
    """Equations 15 and 16 of the paper, in float64."""
    rows = np.random.RandomState(3).standard_normal((2, 4, 8, 12)).astype(np.float32)
    seen = []
    for part in (None, 0.7, 1.0):
        one = image(guidance_scale=7.5, guidance_rescale=part)
        one.watcher = lambda _, guided: seen.append(guided.copy())
        one.advance(rows.copy())
    negative, prompt = rows.astype(np.float64)
    guided = negative + 7.5 * (prompt - negative)
    rescaled = guided * prompt.std(ddof=1) / guided.std(ddof=1)
    for found, part in zip(seen, (0, 0.7, 1)):
        np.testing.assert_allclose(found, part * rescaled + (1 - part) * guided, atol=1e-5)
    assert abs(seen[2].std() - rows[1].std()) < 1e-5 < abs(seen[0].std() - rows[1].std())


def test_a_watcher_sees_every_call_with_guidance_done_and_changes_nothing():
    watched, seen = image(scheduler="pndm"), []

    def watcher(own, guided):
        rows = {"encoder_hidden_states": np.stack(embeds(own))}
        noise = predict(np.stack([own.model_input()] * 2), own.timestep[None], rows)
        expected = noise[0] + np.float32(7.5) * (noise[1] - noise[0])
        np.testing.assert_allclose(guided, expected, rtol=1e-5, atol=1e-5)
        seen.append(own.call)

    watched.watcher = watcher
    (latents,) = denoise(watched)
    assert seen == list(range(6)) and watched.calls == watched.call == 6
    np.testing.assert_array_equal(latents, *denoise(image(scheduler="pndm")))


def test_a_deadline_is_checked_and_says_how_far_the_image_came():
    in_time, late = image(deadline=time.monotonic() + 100), image(deadline=time.monotonic())
    late.advance(np.zeros((2, *late.latents.shape), np.float32))
    in_time.check_deadline()
    with pytest.raises(Expired, match=r"^timeout: .* after 1 of 5 calls of the UNet$"):
        late.check_deadline()


def test_guidance_takes_two_rows_with_the_negative_prompt_first():
    guided = image(guidance_scale=1.01)
    assert np.array_equal(embeds(guided), [NEGATIVE, PROMPT])


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_guidance_of_one_or_less_takes_the_prompts_row_alone(scale):
    plain = image(guidance_scale=scale)
    assert np.array_equal(embeds(plain), [PROMPT])
    assert np.array_equal(*denoise(plain, image(guidance_scale=1.0)))


def rows_by_call(one):
    """How many rows each of an image's calls takes."""
    rows = []
    while not one.finished:
        rows.append(len(one.conditioning))
        assert one.conditioning[-1]["encoder_hidden_states"] is PROMPT
        one.advance(np.zeros((rows[-1], *one.latents.shape), np.float32))
    return rows


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({}, [2] * 5),
        ({"guidance_start": 0.0, "guidance_stop": 1.0}, [2] * 5),
        ({"guidance_stop": 0.5}, [2, 2, 1, 1, 1]),
        ({"guidance_start": 0.4}, [1, 1, 2, 2, 2]),
        ({"guidance_start": 0.2, "guidance_stop": 0.6}, [1, 2, 2, 1, 1]),
        ({"guidance_stop": 0.5, "guidance_scale": 1.0}, [1] * 5),
        ({"guidance_start": 0.5, "guidance_stop": 0.5}, [1] * 5),
        # Both calls of a step are alike; the last step has one.
        ({"guidance_stop": 0.5, "scheduler": "heun"}, [2] * 4 + [1] * 5),
        ({"guidance_start": 0.8, "scheduler": "dpm2_karras"}, [1] * 8 + [2]),
        ({"guidance_stop": 1.0, "scheduler": "heun"}, [2] * 9),
        # The first step is made twice.
        ({"guidance_stop": 0.2, "scheduler": "pndm"}, [2, 2, 1, 1, 1, 1]),
        ({"guidance_start": 0.2, "scheduler": "pndm"}, [1, 1, 2, 2, 2, 2]),
    ],
)
def test_rows_of_each_call_where_guidance_is_in_part_of_the_steps(asked, rows):
    assert rows_by_call(image(**asked)) == rows


def test_steps_of_four_calls_are_guided_as_a_whole():
    config = {**CONFIG, "skip_prk_steps": False}
    model_files = dataclasses.replace(MODEL_FILES, scheduler_config=config)
    asked = {"scheduler": "pndm", "guidance_start": 0.2, "guidance_stop": 0.8}
    rows = rows_by_call(image(model_files=model_files, **asked))
    assert rows == [1] * 4 + [2] * 8 + [2] + [1]


@pytest.mark.parametrize(
    ("scheduler", "rows"),
    [("ddim", [2, 2, 1, 1]), ("heun", [2] * 4 + [1] * 3), ("pndm", [2, 2, 2, 1, 1])],
)
def test_from_a_picture_the_steps_that_are_made_count(scheduler, rows):
    start = Start(np.zeros((8, 8, 12), np.float32))
    settings = dataclasses.replace(
        SETTINGS, num_inference_steps=8, strength=0.5, guidance_stop=0.5, scheduler=scheduler
    )
    prompts = of_prompts(PROMPT, NEGATIVE)
    assert rows_by_call(Denoising(settings, *prompts, MODEL_FILES, start)) == rows


def test_outside_of_its_part_guidance_leaves_the_prompts_output_as_it_is():
    rows = np.random.RandomState(3).standard_normal((2, 4, 8, 12)).astype(np.float32)
    seen = []
    one = image(guidance_start=0.2, guidance_rescale=0.7)
    one.watcher = lambda _, guided: seen.append(guided.copy())
    one.advance(rows[1:])
    one.advance(rows)
    np.testing.assert_array_equal(seen[0], rows[1])
    assert abs(seen[1] - rows[1]).max() > 0.1


def test_images_share_calls_whatever_their_part_of_guidance_and_none_changes_a_bit():
    counted = []

    def counting(sample, timestep, conditioning):
        counted.append(len(sample))
        return predict(sample, timestep, conditioning)

    asked = [{"guidance_stop": 0.5}, {"guidance_start": 0.4}, {}, {"guidance_scale": 1.0}]
    shared = denoise(*(image(**one) for one in asked), predict_noise=counting)
    assert counted == [6, 6, 6, 6, 6]
    for one, result in zip(asked, shared):
        np.testing.assert_array_equal(result, *denoise(image(**one)))
    counted.clear()
    for result, one in zip(denoise(*(image(**one) for one in asked), max_rows=3), shared):
        np.testing.assert_array_equal(result, one)


def test_a_run_is_the_schedulers_steps_with_guidance():
    """Against the same arithmetic written out: DDIM, and the formula of guidance in float64."""
    scheduler = schedulers.create("ddim", CONFIG, 5)
    latents = Noise(42).randn((4, 8, 12))
    for call, timestep in enumerate(scheduler.timesteps):
        sample, steps = np.stack([latents] * 2), np.full(2, timestep, np.float32)
        rows = {"encoder_hidden_states": np.stack([NEGATIVE, PROMPT])}
        negative, prompt = predict(sample, steps, rows).astype(np.float64)
        guided = (negative + 7.5 * (prompt - negative)).astype(np.float32)
        latents = scheduler.step(guided, call, latents, None)
    (result,) = denoise(image())
    np.testing.assert_allclose(result, latents / 0.18215, rtol=1e-4, atol=1e-5)
    assert result.dtype == np.float32
    assert result.shape == (4, 8, 12)


def test_the_result_is_scaled_and_shifted_for_the_vae():
    model_files = dataclasses.replace(MODEL_FILES, scaling_factor=0.5, shift_factor=0.25)
    one, other = denoise(image(), image(model_files=model_files))
    np.testing.assert_allclose(other, one * 0.18215 / 0.5 + 0.25, rtol=1e-5, atol=1e-6)


def test_every_scheduler_makes_all_its_calls_and_company_changes_no_bit():
    settings = [
        {
            "scheduler": name,
            "num_inference_steps": 2 + at % 9,
            "guidance_scale": 1 + at % 2,
            "seed": at,
        }
        for at, name in enumerate(schedulers.NAMES)
    ]
    company = [image(**one) for one in settings]
    results = denoise(*company, max_rows=7)
    assert all(among.finished for among in company)
    for one, result in zip(settings, results):
        (alone,) = denoise(image(**one))
        assert np.array_equal(result, alone), one
        assert np.isfinite(alone).all(), one


@pytest.mark.parametrize(
    "scheduler",
    ["ddpm", "euler_ancestral", "dpm2_ancestral", "dpmpp_2m_sde", "dpmpp_2s_sde", "lcm", "tcd"],
)
def test_a_stochastic_scheduler_draws_from_the_seeds_stream_after_the_first_noise(scheduler):
    (drawn,) = denoise(image(scheduler=scheduler, num_inference_steps=2, guidance_scale=1))
    stepper = schedulers.create(scheduler, CONFIG, 2)
    stream = Noise(42)
    latents = stream.randn((4, 8, 12)) * np.float32(stepper.init_noise_sigma)
    for call, timestep in enumerate(stepper.timesteps):
        sample = stepper.scale_model_input(latents, call)[None]
        rows = {"encoder_hidden_states": PROMPT[None]}
        (output,) = predict(sample, np.array([timestep]), rows)
        latents = stepper.step(output, call, latents, stream.randn)
    np.testing.assert_allclose(drawn, latents / 0.18215, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("scheduler", "prediction_type"), PREDICTIONS)
def test_the_calls_output_may_be_overwritten_after_the_step(scheduler, prediction_type):
    config = {**CONFIG, "prediction_type": prediction_type}
    model_files = dataclasses.replace(MODEL_FILES, scheduler_config=config)
    memory = np.empty((1, 4, 8, 12), np.float32)

    def reuse_memory(*arguments):
        memory[:] = predict(*arguments)
        return memory

    (usual,) = denoise(image(scheduler=scheduler, guidance_scale=1, model_files=model_files))
    (other,) = denoise(
        image(scheduler=scheduler, guidance_scale=1, model_files=model_files),
        predict_noise=reuse_memory,
    )
    assert np.array_equal(usual, other)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_latents_that_are_not_finite_are_an_error_of_that_image_alone(bad):
    def overflow(sample, timestep, conditioning):
        output = predict(sample, timestep, conditioning)
        output[np.array(conditioning["encoder_hidden_states"])[:, 0, 0] == 999, 0, 0, 0] = bad
        return output

    marked = PROMPT.copy()
    marked[0, 0] = 999
    loop = DenoisingLoop(overflow, 32)
    broken, well = loop.run_to_end([image(prompt=marked), image()])
    assert isinstance(broken, NotFinite)
    assert "latents are not finite" in str(broken)
    assert np.array_equal(well, *denoise(image()))


@pytest.mark.parametrize("name", ["prompt_embeds", "negative_prompt_embeds"])
@pytest.mark.parametrize("shape", [(7,), (1, 7, 16), (0, 16), (7, 0)])
def test_embeddings_of_a_wrong_shape_are_refused(name, shape):
    given = {"prompt": PROMPT, "negative": NEGATIVE}
    given[name.split("_")[0]] = np.zeros(shape, np.float32)
    with pytest.raises(InvalidRequest, match=r"embeds: got .*of one shape for both prompts"):
        image(**given)


def test_embeddings_of_two_shapes_are_refused():
    with pytest.raises(InvalidRequest, match=r"^negative_prompt_embeds: got \[8, 16\]; allowed"):
        image(negative=np.zeros((8, 16), np.float32))


def test_a_side_that_the_vae_cannot_make_is_refused():
    with pytest.raises(InvalidRequest, match=r"^width: got 100; allowed: 96 or 104, the nearest"):
        image(width=100)


def test_embeddings_of_another_type_or_order_are_made_fit():
    other = image(prompt=np.asfortranarray(PROMPT, np.float64))
    assert embeds(other)[1].dtype == np.float32
    assert embeds(other)[1].flags.c_contiguous
    assert np.array_equal(*denoise(image(), other))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["prompt_embeds", "negative_prompt_embeds"])
def test_embeddings_that_are_not_finite_are_refused(name, bad):
    spoiled = PROMPT.copy()
    spoiled[3, 2] = bad
    both = (spoiled, NEGATIVE) if name == "prompt_embeds" else (PROMPT, spoiled)
    with pytest.raises(
        InvalidRequest, match=rf"^{name}: got (NaN|Infinity); allowed: finite numbers"
    ):
        image(*both)


LCM = dataclasses.replace(MODEL_FILES, time_cond_proj_dim=9)


def test_the_embedding_of_guidance_is_that_of_diffusers():
    """get_guidance_scale_embedding(torch.tensor([7.5 - 1]), embedding_dim=9)."""
    expected = [-0.0448, 0.1102, 0.9911, 0.6052, -0.9990, 0.9939, 0.1329, 0.7961, 0]
    np.testing.assert_allclose(guidance_embedding(7.5, 9), expected, atol=2e-3)
    assert guidance_embedding(7.5, 9).dtype == np.float32
    np.testing.assert_array_equal(guidance_embedding(1, 4), [0, 0, 1, 1])


@pytest.mark.parametrize("guidance_scale", [0.5, 1, 7.5])
def test_a_model_that_takes_guidance_as_an_embedding_has_one_row_and_no_negative_prompt(
    guidance_scale,
):
    one = image(model_files=LCM, guidance_scale=guidance_scale)
    (row,) = one.conditioning
    assert np.array_equal(row["encoder_hidden_states"], PROMPT)
    assert np.array_equal(row["timestep_cond"], guidance_embedding(guidance_scale, 9))
    assert dict(one.call_key.conditioning)["timestep_cond"] == (9,)


def test_images_of_such_a_model_share_calls_each_with_its_own_guidance():
    def predict(sample, timestep, conditioning):
        assert len(sample) == 2
        embedding = np.sum(conditioning["timestep_cond"], axis=1)
        return sample * 0.5 + 0.1 * embedding[:, None, None, None]

    scales = (2, 5)
    shared = denoise(
        *(image(model_files=LCM, guidance_scale=scale) for scale in scales), predict_noise=predict
    )
    assert not np.array_equal(*shared)
