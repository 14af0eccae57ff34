import json

import pytest

from triptych_export.errors import ExportError
from triptych_export.source import open_source, pipeline_numbers

INDEX = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
CONFIGS = {
    "text_encoder/config.json": {"hidden_size": 768, "vocab_size": 49408},
    "unet/config.json": {
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 64,
        "cross_attention_dim": 768,
    },
    "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
    "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler"},
    "tokenizer/tokenizer_config.json": {},
}


def write_source(folder, index=None, **changes):
    (folder / "model_index.json").write_text(json.dumps({**INDEX, **(index or {})}))
    for name, config in CONFIGS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**config, **changes.get(path.parent.name, {})}))
    return folder


def test_the_numbers_of_stable_diffusion_1_5(tmp_path):
    source = open_source(write_source(tmp_path))
    assert (source.text_length, source.vocab_size, source.paddle) == (77, 49408, False)
    assert pipeline_numbers(source) == {
        "height": 512,
        "width": 512,
        "latent_channels": 4,
        "vae_scale_factor": 8,
        "scaling_factor": 0.18215,
    }


def test_the_numbers_follow_the_source(tmp_path):
    changes = {
        "unet": {"sample_size": [96, 64], "cross_attention_dim": 1024},
        "text_encoder": {"hidden_size": 1024},
        "vae": {"block_out_channels": [8, 8], "scaling_factor": 0.5, "shift_factor": 0.1},
    }
    source = open_source(write_source(tmp_path, **changes))
    numbers = pipeline_numbers(source, num_inference_steps=20, guidance_scale=5.0)
    assert numbers == {
        "height": 192,
        "width": 128,
        "latent_channels": 4,
        "vae_scale_factor": 2,
        "scaling_factor": 0.5,
        "shift_factor": 0.1,
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
    }
    assert source.hidden_size == 1024


@pytest.mark.parametrize(
    ("index", "unet", "why"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, {}, "SDXL"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, {}, "SDXL"),
        ({}, {"addition_embed_type": "text_time"}, "SDXL"),
        ({"transformer": ["diffusers", "SD3Transformer2DModel"]}, {}, "not a Stable Diffusion"),
        ({}, {"in_channels": 9}, "inpainting"),
        ({}, {"in_channels": 16, "out_channels": 16}, "16 channels"),
        ({}, {"num_class_embeds": 1000}, "class labels"),
        ({}, {"sample_size": None}, "sample_size"),
        ({}, {"cross_attention_dim": 1024}, "not parts of one model"),
    ],
)
def test_other_models_are_refused_with_the_reason(tmp_path, index, unet, why):
    with pytest.raises(ExportError, match=why):
        open_source(write_source(tmp_path, index, unet=unet))


def test_a_missing_part_is_named(tmp_path):
    write_source(tmp_path)
    (tmp_path / "vae" / "config.json").unlink()
    with pytest.raises(ExportError, match=r"vae.config\.json is missing"):
        open_source(tmp_path)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"model_index\.json is missing"):
        open_source(tmp_path)


@pytest.mark.parametrize("sign", ["index", "weights"])
def test_weights_in_paddles_layout_are_known(tmp_path, sign):
    write_source(tmp_path, {"_ppdiffusers_version": "0.29.0"} if sign == "index" else None)
    if sign == "weights":
        (tmp_path / "unet" / "model_state.pdparams").touch()
    assert open_source(tmp_path).paddle
