"""A second pass: latents in another size as torch makes them, noised and denoised once more."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from test_denoising import MODEL_FILES, PROMPT, SETTINGS, denoise, image, predict

from triptych import schedulers, sdxl
from triptych.denoise.conditioning import Conditioning
from triptych.denoise.denoising import Denoising
from triptych.denoise.interpolation import covering
from triptych.denoise.loop import DenoisingLoop
from triptych.denoise.noise import Noise
from triptych.denoise.observer import Observer
from triptych.errors import InvalidRequest, NotFinite
from triptych.second_pass import INTERPOLATIONS, SecondPass

SECOND = SecondPass(96, 128, 0.5, 8, "bilinear")
FIXTURE = Path(__file__).parents[1] / "fixtures" / "interpolations.npz"


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_latents_come_to_another_size_as_torch_brings_them(interpolation):
    with np.load(FIXTURE) as fixture:
        names = [name for name in fixture.files if name.startswith(f"{interpolation}_")]
        assert len(names) == 4
        for name in names:
            found = covering(fixture["latents"], fixture[name].shape[1:], interpolation)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, fixture[name], rtol=0, atol=1e-5)


def test_another_shape_is_covered_and_cut_at_its_middle():
    with np.load(FIXTURE) as fixture:
        latents, whole = fixture["latents"], fixture["nearest_12x18"]
    np.testing.assert_array_equal(covering(latents, (12, 13), "nearest"), whole[:, :, 2:15])
    np.testing.assert_array_equal(covering(latents, (7, 18), "nearest"), whole[:, 2:9])


@pytest.mark.parametrize("name", schedulers.NAMES)
def test_the_second_pass_is_an_image_that_starts_from_the_first_ones_latents(name):
    alone = image(scheduler=name)
    denoise(alone)
    both = image(scheduler=name, second_pass=SECOND)
    total, seen = both.calls_in_all, []
    both.watcher = lambda image, _: seen.append(image.calls_before + image.call + 1)
    while not both.finished:
        both.advance(predict_rows(both))
    np.testing.assert_array_equal(both.latents, alone.latents)
    second = both.following()
    scheduler = schedulers.create(name, MODEL_FILES.scheduler_config, 8, strength=0.5)
    noise = Noise(SETTINGS.seed).randn((4, 12, 16))
    clean = covering(alone.latents, (12, 16), "bilinear")
    expected = scheduler.add_noise(clean, noise, scheduler.begin)
    np.testing.assert_array_equal(second.latents, expected)
    while not second.finished:
        second.advance(predict_rows(second))
    assert second.following() is None
    assert seen == list(range(1, total + 1))


def predict_rows(one):
    rows = one.conditioning
    sample = np.stack([one.model_input()] * len(rows))
    embeds = np.stack([row["encoder_hidden_states"] for row in rows])
    timestep = np.full(len(rows), one.timestep, np.float32)
    return predict(sample, timestep, {"encoder_hidden_states": embeds})


def test_the_loop_makes_both_passes_and_company_changes_nothing():
    told = []

    class Told(Observer):
        def queued(self, seconds):
            told.append("queued")

        def finished(self):
            told.append("finished")

    def two():
        return image(second_pass=SECOND), image(seed=3)

    alone = [denoise(one)[0] for one in two()]
    assert [one.shape for one in alone] == [(4, 12, 16), (4, 8, 12)]
    together = DenoisingLoop(predict, 32, Told()).run_to_end(two())
    for found, expected in zip(together, alone):
        np.testing.assert_array_equal(found, expected)
    assert sorted(told) == ["finished"] * 2 + ["queued"] * 2


def test_deep_features_of_both_passes_are_let_go_of():
    gone, images = [], []

    def noted(*arguments, deep_cache):
        images.extend(one.name for one in deep_cache.images)
        gone.extend(deep_cache.gone)
        return predict(*arguments)

    loop = DenoisingLoop(noted, 32)
    after = image(seed=3, cache_interval=2, num_inference_steps=20)
    loop.run_to_end([image(second_pass=SECOND, cache_interval=2), after])
    assert len(set(images)) == 3 and set(gone) == set(images) - {after.deep_name}


def test_what_the_second_pass_cannot_do_is_said_before_the_first():
    with pytest.raises(InvalidRequest, match="height: got 90; allowed: 88 or 96, the nearest"):
        image(second_pass=SECOND._replace(height=90))
    with pytest.raises(InvalidRequest, match=r"strength: got 0\.1"):
        image(second_pass=SECOND._replace(strength=0.1))


def test_sdxls_unet_is_told_the_size_of_the_pass():
    sizes = Conditioning(encoder_hidden_states=PROMPT, time_ids=sdxl.time_ids(SETTINGS))
    settings = dataclasses.replace(SETTINGS, second_pass=SECOND)
    one = Denoising(settings, sizes, sizes, MODEL_FILES)
    denoise(one)
    second = one.following()
    expected = sdxl.time_ids(dataclasses.replace(SETTINGS, height=96, width=128))
    for row in second.conditioning:
        np.testing.assert_array_equal(row["time_ids"], expected)
    assert not np.array_equal(sizes["time_ids"], expected)


def test_latents_that_are_no_numbers_have_no_second_pass():
    one = image(second_pass=SECOND)
    with pytest.raises(NotFinite):
        denoise(one, predict_noise=lambda sample, *_: np.full_like(sample, np.nan))
