"""Images that start from a picture: their noise, their calls, and what a mask keeps."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from test_denoising import MODEL_FILES, NEGATIVE, PROMPT, SETTINGS, denoise

from triptych import schedulers
from triptych.denoise.conditioning import of_prompts
from triptych.denoise.denoising import Denoising
from triptych.denoise.noise import Noise
from triptych.denoise.start import Start, encoded, latents
from triptych.errors import InvalidRequest, NotFinite

SHAPE = (4, 8, 12)
MOMENTS = np.random.RandomState(2).standard_normal((8, 8, 12)).astype(np.float32)
MASK = np.zeros((1, 8, 12), np.float32)
MASK[:, :4] = 1
INPAINTING = dataclasses.replace(MODEL_FILES, unet_in_channels=9)


def image(start, model_files=MODEL_FILES, strength=0.5, **changes):
    settings = dataclasses.replace(SETTINGS, strength=strength, **changes)
    return Denoising(settings, *of_prompts(PROMPT, NEGATIVE), model_files, start)


def drawn(seed=42):
    """The picture's latents and the noise that is added to them."""
    noise = Noise(seed)
    return latents(MOMENTS, noise.randn(SHAPE), MODEL_FILES), noise.randn(SHAPE), noise


def test_latents_are_drawn_by_mean_and_deviation_within_diffusers_bounds():
    moments = np.zeros((8, 1, 1), np.float32)
    moments[:4, 0, 0], moments[4:, 0, 0] = 2, (0, 2, -100, 100)
    files = dataclasses.replace(MODEL_FILES, scaling_factor=0.5, shift_factor=1.0)
    found = latents(moments, np.ones((4, 1, 1), np.float32), files)
    expected = 0.5 * (1 + np.exp([0, 1, -15, 10]))
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-5)


def test_the_first_latents_are_the_picture_with_the_noise_of_the_first_call():
    clean, noise, _ = drawn()
    own = image(Start(MOMENTS), num_inference_steps=10)
    scheduler = schedulers.create("ddim", MODEL_FILES.scheduler_config, 10, strength=0.5)
    assert scheduler.begin == 5 and own.calls == 5
    assert own.timestep == scheduler.timesteps[5]
    np.testing.assert_array_equal(own.latents, scheduler.add_noise(clean, noise, 5))


def test_all_calls_are_counted_and_none_before_the_start_is_made():
    for name in schedulers.NAMES:
        own = image(Start(MOMENTS), scheduler=name, num_inference_steps=8, strength=0.3)
        (result,) = denoise(own)
        assert own.finished and own.call == own.calls <= 3
        assert np.isfinite(result).all()


def test_strength_1_with_a_mask_starts_from_noise_alone_as_diffusers_does():
    _, noise, _ = drawn()
    own = image(Start(MOMENTS, MASK), strength=1.0, scheduler="euler")
    sigma = schedulers.create("euler", MODEL_FILES.scheduler_config, 5).init_noise_sigma
    np.testing.assert_array_equal(own.latents, noise * np.float32(sigma))
    without = image(Start(MOMENTS), strength=1.0, scheduler="euler")
    assert not np.array_equal(own.latents, without.latents)


def test_what_the_mask_keeps_has_the_noise_of_the_next_call_and_none_at_the_end():
    clean, noise, _ = drawn()
    scheduler = schedulers.create("euler", MODEL_FILES.scheduler_config, 10, strength=0.5)
    own = image(Start(MOMENTS, MASK), scheduler="euler", num_inference_steps=10)
    output = np.ones((2, *SHAPE), np.float32)
    own.advance(output)
    expected = scheduler.add_noise(clean, noise, 6)
    np.testing.assert_array_equal(own.latents[:, 4:], expected[:, 4:])
    assert not np.array_equal(own.latents[:, :4], expected[:, :4])
    while not own.finished:
        own.advance(output)
    np.testing.assert_array_equal(own.latents[:, 4:], clean[:, 4:])


def test_the_steps_noise_comes_after_that_of_the_masked_picture():
    """Which diffusers draws for a UNet of 4 channels too, and does not use."""
    own = image(Start(MOMENTS, MASK), scheduler="euler_ancestral", num_inference_steps=10)
    _, _, stream = drawn()
    stream.randn(SHAPE)
    np.testing.assert_array_equal(own._noise.randn(SHAPE), stream.randn(SHAPE))


def test_a_unet_that_paints_in_pictures_is_conditioned_on_the_mask_and_on_what_stays():
    masked = MOMENTS[::-1].copy()
    own = image(Start(MOMENTS, MASK, masked), INPAINTING)
    _, _, stream = drawn()
    expected = latents(masked, stream.randn(SHAPE), MODEL_FILES)
    for row in own.conditioning:
        np.testing.assert_array_equal(row["mask"], MASK)
        np.testing.assert_array_equal(row["masked_image_latents"], expected)
    assert own.model_input().shape == SHAPE
    full = image(Start(None, MASK, masked), INPAINTING, strength=1.0)
    noise = Noise(42)
    np.testing.assert_array_equal(full.latents, noise.randn(SHAPE))
    found = full.conditioning[0]["masked_image_latents"]
    np.testing.assert_array_equal(found, latents(masked, noise.randn(SHAPE), MODEL_FILES))


@pytest.mark.parametrize(
    "start, message", [(None, "image: got null"), (Start(MOMENTS), "mask_image: got null")]
)
def test_such_a_model_refuses_to_do_without(start, message):
    with pytest.raises(InvalidRequest, match=f"^{message}; allowed: a picture and its mask"):
        image(start, INPAINTING, strength=None if start is None else 0.5)


@pytest.mark.parametrize("name", schedulers.NAMES)
def test_company_changes_no_bit(name):
    def one(**changes):
        start = Start(MOMENTS, MASK) if changes.pop("masked") else Start(MOMENTS)
        return image(start, scheduler=name, num_inference_steps=7, **changes)

    kinds = [{"masked": masked, "strength": 0.8} for masked in (True, False)]
    alone = [denoise(one(**kind))[0] for kind in kinds]
    from_noise = Denoising(SETTINGS, *of_prompts(PROMPT, NEGATIVE), MODEL_FILES)
    other = one(masked=True, strength=0.4, seed=9)
    together = denoise(other, *(one(**kind) for kind in kinds), from_noise)
    for expected, found in zip(alone, together[1:]):
        np.testing.assert_array_equal(found, expected)


def png(size=(96, 64), colour=None):
    pixels = np.random.RandomState(1).randint(0, 256, (size[1], size[0], 3), np.uint8)
    if colour is not None:
        pixels[:] = colour
        pixels[: size[1] // 2] = 255 - colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_encoder_is_called_as_often_as_the_model_needs_it():
    asked = []

    def encoder(sample):
        assert sample.dtype == np.float32 and sample.shape == (1, 3, 64, 96)
        assert sample.flags.c_contiguous
        asked.append(sample[0])
        return MOMENTS[np.newaxis]

    half = dataclasses.replace(SETTINGS, strength=0.5)
    mask = png(colour=0)
    assert encoded(half, png(), b"", MODEL_FILES, encoder).mask is None
    np.testing.assert_array_equal(encoded(half, png(), mask, MODEL_FILES, encoder).mask, MASK)
    assert len(asked) == 2
    pixels = np.asarray(Image.open(io.BytesIO(png()))).transpose(2, 0, 1)
    np.testing.assert_allclose(asked[0], pixels / 127.5 - 1, atol=1e-6)

    asked.clear()
    both = encoded(half, png(), mask, INPAINTING, encoder)
    assert both.moments is not None and both.masked_moments is not None and len(asked) == 2
    assert (asked[1][:, :32] == 0).all()
    np.testing.assert_array_equal(asked[1][:, 32:], asked[0][:, 32:])
    asked.clear()
    full = dataclasses.replace(SETTINGS, strength=1.0)
    assert encoded(full, png(), mask, INPAINTING, encoder).moments is None and len(asked) == 1


def test_an_encoder_that_does_not_fit_or_overflows_is_an_error():
    settings = dataclasses.replace(SETTINGS, strength=0.5)
    with pytest.raises(RuntimeError, match="vae_encoder gave"):
        encoded(settings, png(), b"", MODEL_FILES, lambda sample: MOMENTS[np.newaxis, :4])
    with pytest.raises(NotFinite, match="vae_encoder"):
        encoded(settings, png(), b"", MODEL_FILES, lambda sample: MOMENTS[np.newaxis] * np.inf)


def test_a_mask_that_is_all_black_has_no_part_to_crop():
    settings = dataclasses.replace(SETTINGS, strength=0.5, padding_mask_crop=0)
    black = io.BytesIO()
    Image.new("L", (96, 64)).save(black, "PNG")
    with pytest.raises(InvalidRequest, match=r"^mask_image: .* something white"):
        encoded(settings, png(), black.getvalue(), MODEL_FILES, None)
