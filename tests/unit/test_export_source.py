import json

import pytest

from triptych_export.errors import ExportError
from triptych_export.source import open_source, pipeline_numbers
from triptych_export.stages import stages

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
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "text_encoder_layers": 12,
    }


def test_a_unet_of_nine_channels_takes_the_mask_and_what_stays(tmp_path):
    source = open_source(write_source(tmp_path, unet={"in_channels": 9}))
    assert pipeline_numbers(source)["unet_in_channels"] == 9
    assert (source.latent_channels, source.paints_in) == (4, True)
    assert source.pipeline == "StableDiffusionInpaintPipeline"  # whatever model_index.json names
    unet = stages(source)["unet"]
    assert list(unet.inputs)[3:] == ["mask", "masked_image_latents"]
    assert unet.inputs["mask"] == ("batch", 1, "height", "width")
    assert unet.inputs["masked_image_latents"] == unet.inputs["sample"] == unet.output_axes


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
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "text_encoder_layers": 12,
    }
    assert source.hidden_size == 1024


def test_a_latent_consistency_model_has_its_pipelines_defaults(tmp_path):
    index = {"_class_name": "LatentConsistencyModelPipeline", "scheduler": ["diffusers", "LCM"]}
    source = open_source(write_source(tmp_path, index, unet={"time_cond_proj_dim": 256}))
    assert stages(source)["unet"].inputs["timestep_cond"] == ("batch", 256)
    numbers = pipeline_numbers(source)
    assert numbers["time_cond_proj_dim"] == 256
    assert (numbers["num_inference_steps"], numbers["guidance_scale"]) == (4, 8.5)
    assert pipeline_numbers(source, 8, 1.0)["guidance_scale"] == 1
    assert source.scheduler_class == "LCM"


@pytest.mark.parametrize(
    ("part", "config", "why"),
    [
        ("vae", {"new_of_2027": True}, r"vae.config\.json: new_of_2027 is no key"),
        ("text_encoder", {"new_of_2027": []}, r"text_encoder.config\.json: new_of_2027 is no key"),
        ("text_encoder", {"is_decoder": True}, "is_decoder is True"),
        ("text_encoder", {"model_type": "bert", "type_vocab_size": 2}, "of the kind bert"),
    ],
)
def test_what_a_networks_configuration_says_is_known_or_refused(tmp_path, part, config, why):
    with pytest.raises(ExportError, match=why):
        open_source(write_source(tmp_path, **{part: config}))


def test_what_turns_nothing_on_is_no_reason_to_refuse(tmp_path):
    nothing = {"new_of_2027": None, "_diffusers_version": "9", "attention_type": "default"}
    open_source(write_source(tmp_path, unet=nothing))


@pytest.mark.parametrize(
    ("index", "unet", "why"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, {}, "names no text_encoder_2"),
        ({"_class_name": "MyPipeline"}, {}, "the pipeline MyPipeline is not known"),
        (
            {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
            {},
            "StableDiffusionPipeline is not known with two .*; known are StableDiffusionXL",
        ),
        ({}, {"addition_embed_type": "text_time"}, "SDXL"),
        ({"transformer": ["diffusers", "SD3Transformer2DModel"]}, {}, "not a Stable Diffusion"),
        ({}, {"in_channels": 5}, "inpainting"),
        ({}, {"in_channels": 16, "out_channels": 16}, "16 channels"),
        ({}, {"num_class_embeds": 1000}, "num_class_embeds is 1000"),
        ({}, {"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type is 'image_proj'"),
        ({}, {"attention_type": "gated"}, "attention_type is 'gated'"),
        ({}, {"new_of_2027": 1}, "unet.config.json: new_of_2027 is no key"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, {}, "vae is of the class AutoencoderTiny"),
        ({"text_encoder": ["transformers", "BertModel"]}, {}, "of the class BertModel"),
        ({"scheduler": [None, None]}, {}, "scheduler is null"),
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
