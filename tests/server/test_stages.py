"""Every stage by itself, over gRPC."""

import base64

import numpy as np

from tests.server.calls import SMALL, pixels, request, texts, words_of
from triptych.picture.metadata import read_settings
from triptych.settings import Settings


def test_tokenizer(calls):
    outputs = calls.tokens(request("a red circle", **SMALL), b"a plain prompt")
    assert outputs["input_ids"].shape == outputs["negative_input_ids"].shape == (2, 77)
    assert outputs["input_ids"].dtype == np.int32
    first, second = (Settings.from_json(text) for text in outputs["settings"][:, 0])
    assert (first.prompt, first.seed, first.width) == ("a red circle", 7, 128)
    assert second.prompt == "a plain prompt"
    assert (outputs["input_ids"][0] != outputs["input_ids"][1]).any()
    assert (outputs["negative_input_ids"][0] == outputs["negative_input_ids"][1]).all()


def test_text_encoder(calls):
    words = words_of(calls.tokens(b"a red circle", b"a blue star"))
    together = calls.infer("text_encoder", words)["last_hidden_state"]
    assert together.dtype == np.float32 and together.shape[:2] == (2, 77)
    second = {name: array[1:] for name, array in words.items()}
    alone = calls.infer("text_encoder", second)["last_hidden_state"]
    np.testing.assert_allclose(together[1:], alone, atol=1e-5)


def test_unet(calls):
    embeds = calls.loop_inputs(b"a red circle", b"a blue star")["prompt_embeds"]
    sample = np.random.RandomState(0).standard_normal((2, 4, 16, 24)).astype(np.float32)
    inputs = {
        "sample": sample,
        "timestep": np.array([[999], [20.5]], np.float32),
        "encoder_hidden_states": embeds,
    }
    together = calls.infer("unet", inputs)["out_sample"]
    assert together.shape == sample.shape and together.dtype == np.float32
    assert np.isfinite(together).all()
    second = {name: array[1:] for name, array in inputs.items()}
    np.testing.assert_allclose(calls.infer("unet", second)["out_sample"], together[1:], atol=1e-4)
    second["timestep"] = np.array([[900]], np.float32)
    assert np.abs(calls.infer("unet", second)["out_sample"] - together[1:]).max() > 1e-3


def test_unet_loop(calls):
    inputs = calls.loop_inputs(request(**SMALL), request("a blue star", **SMALL))
    latents = calls.infer("unet_loop", inputs)["latents"]
    assert latents.shape == (2, 4, 16, 16) and latents.dtype == np.float32
    assert np.isfinite(latents).all() and (latents[0] != latents[1]).any()


def test_vae_decoder(calls):
    latents = np.random.RandomState(0).standard_normal((2, 4, 16, 24)).astype(np.float32)
    sample = calls.infer("vae_decoder", {"latent_sample": latents})["sample"]
    assert sample.shape == (2, 3, 128, 192) and np.isfinite(sample).all()


def test_image_encoder(calls):
    tokens = calls.tokens(request(**SMALL))
    settings, pictures = tokens["settings"], tokens["pictures"]
    sample = np.zeros((1, 3, 128, 128), np.float32)
    sample[0, 0], sample[0, 1] = 1, -1
    last = {"sample": sample, "settings": settings, "pictures": pictures}
    output = calls.infer("image_encoder", last)["OUTPUT_0"]
    file = base64.b64decode(output[0, 0], validate=True)
    assert (pixels(file) == (255, 0, 128)).all()
    assert read_settings(file) == Settings.from_json(settings[0, 0])


def test_the_stages_one_after_another_are_the_ensemble(calls):
    raw = request(**SMALL)
    inputs = calls.loop_inputs(raw)
    latents = calls.infer("unet_loop", inputs)["latents"]
    sample = calls.infer("vae_decoder", {"latent_sample": latents})["sample"]
    last = {"sample": sample, **{name: inputs[name] for name in ("settings", "pictures")}}
    output = calls.infer("image_encoder", last)["OUTPUT_0"]
    assert output[0, 0] == calls.infer("sd_ensemble", {"INPUT_0": texts(raw)})["OUTPUT_0"][0, 0]
