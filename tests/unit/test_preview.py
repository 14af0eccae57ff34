import dataclasses
import json

import numpy as np
import pytest
from scheduler_run import PREDICTIONS

from triptych.denoise import preview
from triptych.denoise.conditioning import of_prompts
from triptych.denoise.denoising import Denoising
from triptych.denoise.preview import Preview, fit
from triptych.model_files import ModelFiles
from triptych.picture.pixels import to_pixels
from triptych.settings import Settings

CONFIG = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
}
COLOURS = [[0.5, 0, 0.1], [0, 0.5, 0], [0.2, 0, 0.5], [-0.1, 0.1, 0], [0.1, -0.2, 0.3]]
MODEL_FILES = ModelFiles(height=64, width=64, scheduler_config=CONFIG, latent_rgb=COLOURS)
SETTINGS = Settings("x", "", 6, 1.0, 3, 64, 96, "ddim", "png")
CLEAN = np.random.RandomState(0).standard_normal((4, 8, 12)).astype(np.float32)


def coloured(latents):
    """The picture of latents, by the formula written out."""
    factors, bias = np.array(COLOURS[:4]), np.array(COLOURS[4])
    colours = np.einsum("chw,cr->rhw", latents, factors) + bias[:, None, None]
    return to_pixels(colours.astype(np.float32))


def signal_at(timestep):
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.interp(timestep, np.arange(1000), np.cumprod(1 - betas))


def perfect(kind, sample, timestep):
    """What a UNet that knows CLEAN says of a sample, as each kind of prediction has it."""
    alpha, sigma = np.sqrt(signal_at(timestep)), np.sqrt(1 - signal_at(timestep))
    noise = (sample - alpha * CLEAN) / sigma
    said = {
        "epsilon": noise,
        "v_prediction": alpha * noise - sigma * CLEAN,
        "sample": CLEAN,
    }
    return said[kind].astype(np.float32)


@pytest.mark.parametrize(("scheduler", "kind"), PREDICTIONS)
def test_it_shows_what_the_unet_expects_from_the_first_call_on(scheduler, kind):
    config = {**CONFIG, "prediction_type": kind}
    model_files = dataclasses.replace(MODEL_FILES, scheduler_config=config)
    settings = dataclasses.replace(SETTINGS, scheduler=scheduler)
    embeds = np.ones((7, 16), np.float32)
    image, shown = Denoising(settings, *of_prompts(embeds, embeds), model_files), []
    draws = Preview(model_files)

    def watch(image, model_output):
        shown.append(draws.pixels(image.model_input(), image.timestep, model_output))

    image.watcher = watch
    while not image.finished:
        said = perfect(kind, image.model_input(), image.timestep)
        image.advance(said[None])
    assert len(shown) == image.calls
    for pixels in shown:
        # At timestep 999 the noise is fifteen times the signal, and float32 rounds accordingly.
        np.testing.assert_allclose(pixels.astype(int), coloured(CLEAN), atol=1)


def test_a_model_without_colours_has_no_preview():
    with pytest.raises(ValueError, match="latent_rgb"):
        Preview(dataclasses.replace(MODEL_FILES, latent_rgb=None))


def blocks(latents):
    """A VAE whose picture of a latent is a block of the colour that COLOURS give it."""
    unscaled = (latents - 0.25) * 0.5
    colours = np.einsum("nchw,cr->nrhw", unscaled, np.array(COLOURS[:4]))
    colours += np.array(COLOURS[4])[:, None, None]
    return colours.repeat(8, axis=2).repeat(8, axis=3).astype(np.float32)


def test_the_fit_finds_the_colours_of_a_linear_vae():
    model_files = dataclasses.replace(MODEL_FILES, scaling_factor=0.5, shift_factor=0.25)
    tame = dataclasses.replace(model_files, latent_rgb=None)

    def faint(latents):
        return 0.2 * blocks(latents)  # so that nothing is clipped

    found = fit(faint, tame, size=(16, 12), count=4)
    np.testing.assert_allclose(found, 0.2 * np.array(COLOURS), atol=1e-4)


def test_a_repository_gets_its_colours(tmp_path, monkeypatch):
    import onnxruntime

    class Session:
        def __init__(self, path, providers):
            assert path == str(tmp_path / "vae_decoder" / "1" / "model.onnx")

        def run(self, outputs, inputs):
            assert outputs == ["sample"]
            return [0.2 * blocks(inputs["latent_sample"])]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    folder = tmp_path / "unet_loop" / "1"
    folder.mkdir(parents=True)
    numbers = {"height": 64, "width": 64, "scaling_factor": 0.5, "shift_factor": 0.25}
    (folder / "pipeline.json").write_text(json.dumps(numbers))
    (folder / "scheduler_config.json").write_text(json.dumps(CONFIG))
    preview.main(tmp_path)
    loaded = ModelFiles.load(folder)
    np.testing.assert_allclose(loaded.latent_rgb, 0.2 * np.array(COLOURS), atol=1e-4)
    assert loaded.scaling_factor == 0.5
