"""What models of SDXL's kind take beside others: second prompts, sizes, and their repository."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil

import clip_tokenizer
import numpy as np
import pytest
from PIL import Image
from test_export_source import write_source

from triptych.denoise.conditioning import EMBEDS, SDXL_EMBEDS, of_embeds
from triptych.errors import InvalidRequest
from triptych.lora.request import one
from triptych.model_files import ModelFiles
from triptych.names import Names
from triptych.picture.encode import encode
from triptych.picture.metadata import read_settings
from triptych.picture.request import Request
from triptych.sdxl import time_ids
from triptych.settings import SDXL_KEYS, Settings
from triptych.tokenizer import Tokenizer
from triptych_export import second_encoder
from triptych_export.cli import CHECKOUT, main
from triptych_export.config_edits import with_accelerator, with_cpu_accelerator
from triptych_export.errors import ExportError
from triptych_export.repository import replacement
from triptych_export.service_files import fit_configs, write_service_files
from triptych_export.source import open_source, pipeline_numbers
from triptych_export.stages import stages

USUAL = Settings("red", "", 20, 5.0, 1, 64, 96, "ddim", "png")
MODEL = ModelFiles(64, 64, {}, text_encoder_layers=4, pad_token_id_2=7)
ZEROS = dataclasses.replace(MODEL, force_zeros_for_empty_prompt=1)
ONE = ModelFiles(64, 64, {}, text_encoder_layers=4)
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
}
UNET = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TOKENS = len(clip_tokenizer.vocabulary())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(clip_tokenizer.write(tmp_path_factory.mktemp("tokenizer")))


def encoded(tokenizer, model=MODEL, **changes):
    tensors, _ = tokenizer.encode_settings([dataclasses.replace(USUAL, **changes)], model)
    return {name: tensor[0] for name, tensor in tensors.items()}


def test_the_second_encoder_reads_the_same_words_with_its_own_padding(tokenizer):
    found = encoded(tokenizer, negative_prompt="circle")
    for prefix in ("", "negative_"):
        first, second = found[f"{prefix}input_ids"], found[f"{prefix}input_ids_2"]
        assert first[:3].tolist() == second[:3].tolist()
        assert set(first[3:]) == {first[2]} and set(second[3:]) == {7}
        assert (found[f"{prefix}prompt_weights_2"] == 1).all()


def test_the_second_encoder_reads_prompts_of_its_own_unless_they_are_empty(tokenizer):
    asked = {"prompt_2": "circle", "negative_prompt_2": "and"}
    found, plain = encoded(tokenizer, **asked), encoded(tokenizer)
    alone = encoded(tokenizer, prompt="circle", negative_prompt="and")
    for prefix in ("", "negative_"):
        assert found[f"{prefix}input_ids"].tolist() == plain[f"{prefix}input_ids"].tolist()
        assert found[f"{prefix}input_ids_2"].tolist() == alone[f"{prefix}input_ids_2"].tolist()
    empty = encoded(tokenizer, prompt_2="", negative_prompt_2="")
    assert all((empty[name] == plain[name]).all() for name in plain)


@pytest.mark.parametrize("syntax", [None, "webui"])
def test_zeros_stand_for_a_negative_prompt_that_says_nothing(tokenizer, syntax):
    asked = {"prompt_syntax": syntax}
    weights = ("negative_prompt_weights", "negative_prompt_weights_2")
    silent = encoded(tokenizer, ZEROS, **asked)
    assert all((silent[name] == 0).all() for name in weights)
    assert (silent["prompt_weights_2"] == 1).all()
    for said in ({"negative_prompt": "red"}, {"negative_prompt_2": "red"}):
        heard = encoded(tokenizer, ZEROS, **asked, **said)
        assert all((heard[name] == 1).all() for name in weights)
    assert all((encoded(tokenizer, MODEL, **asked)[name] == 1).all() for name in weights)


def test_all_prompts_of_the_webui_have_as_many_chunks_as_the_longest(tokenizer):
    found = encoded(tokenizer, prompt_2="(red:1.5) " * 80, prompt_syntax="webui")
    assert {name: len(found[name]) for name in found if "input_ids" in name} == dict.fromkeys(
        ("input_ids", "negative_input_ids", "input_ids_2", "negative_input_ids_2"), 154
    )
    assert found["prompt_weights_2"].max() == 1.5 and found["prompt_weights"].max() == 1


def test_a_warning_says_once_what_both_encoders_cut_off(tokenizer):
    asked = dataclasses.replace(USUAL, prompt="red " * 90, negative_prompt_2="and " * 90)
    _, (warned,) = tokenizer.encode_settings([asked], MODEL)
    assert [line.split(" is ")[0] for line in warned.warnings] == ["prompt", "negative_prompt_2"]


VALUES = {
    "prompt_2": "a",
    "negative_prompt_2": "b",
    "original_size": (8, 8),
    "crops_coords_top_left": (0, 8),
    "target_size": (8, 16),
}


@pytest.mark.parametrize("name", SDXL_KEYS)
def test_what_sdxl_alone_takes_is_refused_by_others_by_its_name(tokenizer, name):
    with pytest.raises(InvalidRequest, match=f"^{name}: got .*; allowed: none: .*one text encoder"):
        encoded(tokenizer, ONE, **{name: VALUES[name]})


def test_loras_have_what_both_encoders_take_among_the_settings(tokenizer):
    asked = dataclasses.replace(USUAL, loras=(one("ink", 1.0),), prompt_2="and and")
    tensors, (told,) = tokenizer.encode_settings([asked], MODEL)
    assert told.text_inputs == {name: tensor[0].tolist() for name, tensor in tensors.items()}
    assert {"input_ids_2", "negative_prompt_weights_2"} <= told.text_inputs.keys()


def test_the_sizes_are_the_pictures_own_unless_others_are_given():
    assert time_ids(USUAL).tolist() == [64, 96, 0, 0, 64, 96]
    told = dataclasses.replace(
        USUAL, original_size=(1, 2), crops_coords_top_left=(3, 4), target_size=(5, 6)
    )
    assert time_ids(told).tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("value", [[1], [1, 2, 3], [1, -1], [1, 2.0], "1, 2", 5, [1, 2**16 + 1]])
def test_a_size_is_two_whole_numbers(value):
    text = json.dumps({**json.loads(USUAL.to_json()), "target_size": value})
    with pytest.raises(InvalidRequest, match=r"^target_size: got .*; allowed: a list of two"):
        Settings.from_json(text)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_tells_what_it_was_made_with(kind):
    settings = dataclasses.replace(USUAL, **VALUES, output_format=kind)
    file = encode(np.zeros((3, 64, 96), np.float32), *Request(settings))
    assert Image.open(io.BytesIO(file)).size == (96, 64)
    assert read_settings(file) == settings


def embeds(**changes):
    shapes = dict.fromkeys(EMBEDS, (7, 16))
    shapes.update({name: (32,) if "pooled" in name else (7, 32) for name in SDXL_EMBEDS})
    random = np.random.RandomState(0)
    made = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    return {**made, **changes}


def test_the_unet_attends_to_both_encoders_side_by_side():
    given = embeds()
    rows = of_embeds(given, USUAL, MODEL)
    for prefix, row in zip(("", "negative_"), rows):
        assert row["encoder_hidden_states"].shape == (7, 48)
        both = [given[f"{prefix}prompt_embeds"], given[f"{prefix}prompt_embeds_2"]]
        expected = np.concatenate(both, 1).astype(np.float32)
        assert (row["encoder_hidden_states"] == expected).all()
        pooled = given[f"{prefix}pooled_prompt_embeds"].astype(np.float32)
        assert (row["text_embeds"] == pooled).all()
        assert row["time_ids"].tolist() == [64, 96, 0, 0, 64, 96]
    assert list(of_embeds(given, USUAL, ONE)[0]) == ["encoder_hidden_states"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("prompt_embeds_2", np.zeros((8, 32)), r"\[tokens, channels\], as many tokens"),
        ("negative_prompt_embeds_2", np.zeros(7), r"\[tokens, channels\], as many tokens"),
        ("negative_pooled_prompt_embeds", np.zeros(31), r"\[channels\], of one shape"),
        ("pooled_prompt_embeds", np.full(32, np.nan), "finite numbers"),
    ],
)
def test_embeddings_that_do_not_go_together_are_refused_by_their_names(name, value, said):
    with pytest.raises(InvalidRequest, match=f"^{name}: got .*; allowed: {said}"):
        of_embeds(embeds(**{name: value}), USUAL, MODEL)


def write_sdxl(folder, index=None, **changes):
    """A folder in the layout of SDXL, of its sizes, without weights."""
    folder.mkdir()
    merged = {"unet": {**UNET, **changes.pop("unet", {})}}
    words = {"vocab_size": TOKENS}
    merged["text_encoder"] = {**words, **changes.pop("text_encoder", {})}
    write_source(folder, {**INDEX, **(index or {})}, **merged, **changes)
    second = {"hidden_size": 1280, "projection_dim": 1280, "num_hidden_layers": 32, **words}
    for part, content in (("text_encoder_2", second), ("tokenizer_2", {})):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(content))
    clip_tokenizer.write(folder / "tokenizer")
    clip_tokenizer.write(folder / "tokenizer_2", pad_token="!")
    return folder


def test_the_numbers_and_stages_of_sdxl(tmp_path):
    source = open_source(write_sdxl(tmp_path / "source"))
    numbers = pipeline_numbers(source)
    assert (numbers["height"], numbers["width"], numbers["guidance_scale"]) == (1024, 1024, 5.0)
    assert (numbers["text_encoder_layers"], numbers["force_zeros_for_empty_prompt"]) == (12, 1)
    assert second_encoder.pad_token_id(source) == clip_tokenizer.vocabulary()["!"]
    made = stages(source)
    assert list(made)[:3] == ["text_encoder", "text_encoder_2", "unet"]
    assert made["text_encoder"].output_axes == ("batch", "length", 768)
    assert made["text_encoder_2"].outputs == {
        "last_hidden_state": ("batch", "length", 1280),
        "text_embeds": ("batch", 1280),
    }
    assert made["unet"].inputs["encoder_hidden_states"] == ("batch", "length", 2048)
    assert made["unet"].inputs["text_embeds"] == ("batch", 1280)
    assert made["unet"].inputs["time_ids"] == ("batch", 6)


@pytest.mark.parametrize(
    ("index", "unet", "said"),
    [
        ({"text_encoder": [None, None]}, {}, "SDXL's refiner, which is not served"),
        ({}, {"projection_class_embeddings_input_dim": 2560}, "its refiner takes 5"),
        ({}, {"addition_embed_type": "text_image"}, "takes extra conditions .*text_image"),
        ({}, {"addition_embed_type": None}, "takes extra conditions .*None"),
        ({"_class_name": "StableDiffusionPipeline"}, {}, "not known with two text encoders"),
        ({}, {"cross_attention_dim": 768}, "768 wide, the text encoder makes 2048"),
        ({"text_encoder_2": ["transformers", "CLIPTextModel"]}, {}, "of the class CLIPTextModel"),
    ],
)
def test_what_is_no_base_model_of_sdxl_is_refused(tmp_path, index, unet, said):
    with pytest.raises(ExportError, match=said):
        open_source(write_sdxl(tmp_path / "source", index, unet=unet))


def test_two_vocabularies_are_refused(tmp_path):
    folder = write_sdxl(tmp_path / "source")
    vocabulary = json.loads((folder / "tokenizer_2" / "vocab.json").read_text())
    vocabulary["a</w>"], vocabulary["b</w>"] = vocabulary["b</w>"], vocabulary["a</w>"]
    (folder / "tokenizer_2" / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ExportError, match="tokenizer and tokenizer_2 read words in two ways"):
        second_encoder.pad_token_id(open_source(folder))


def write(source, output, name="sd_ensemble"):
    """What the export writes beside the networks; the repository's files by their names."""
    numbers = pipeline_numbers(source)
    if source.second_encoder is not None:
        numbers["pad_token_id_2"] = second_encoder.pad_token_id(source)
    with replacement(output, CHECKOUT / "model_repository", names=Names(name)) as new:
        write_service_files(source, numbers, new)
        for stage in stages(source):
            new.version_folder(stage)
        fit_configs(source, new)
        new.commit()
    return {path.parent.name: path.read_text() for path in output.glob("*/config.pbtxt")}


@pytest.mark.parametrize("name", ["sd_ensemble", "xl"])
def test_a_repository_becomes_sdxls_and_goes_back(tmp_path, name):
    names = Names(name)
    plain = tmp_path / "plain"
    plain.mkdir()
    write_source(plain, text_encoder={"vocab_size": TOKENS})
    clip_tokenizer.write(plain / "tokenizer")
    output, sdxl = tmp_path / "served", open_source(write_sdxl(tmp_path / "source"))
    before = write(open_source(plain), output, name)
    assert not any("_2" in config for config in before.values())
    first = write(sdxl, output, name)
    assert write(sdxl, output, name) == first
    second = first[names.stage("text_encoder_2")]
    assert f'name: "{names.stage("text_encoder_2")}"' in second
    assert '{ name: "text_embeds" data_type: TYPE_FP32 dims: [ 1280 ] }' in second
    ensemble = first[names.model]
    assert ensemble.count(f'model_name: "{names.stage("text_encoder")}"') == 2
    assert ensemble.count(f'model_name: "{names.stage("text_encoder_2")}"') == 2
    assert 'key: "sample" value: "32 4 192 192"' in first[names.stage("unet")]
    rows = {"unet": 16, "unet_loop": 16, "vae_decoder": 1, "vae_encoder": 1}
    for stage, most in rows.items():
        said = f'parameters {{ key: "max_rows" value {{ string_value: "{most}" }} }}'
        assert (
            first[names.stage(stage)].count("max_rows") == 1 and said in first[names.stage(stage)]
        )
    assert ModelFiles.load(output / names.stage("unet_loop") / "1").is_sdxl
    with pytest.raises(ExportError, match=r"text_encoder_2 is another model's.* remove that"):
        write(open_source(plain), output, name)
    shutil.rmtree(output / names.stage("text_encoder_2"))
    after = write(open_source(plain), output, name)
    for stage in ("tokenizer", "unet_loop", "text_encoder"):
        assert after[names.stage(stage)] == before[names.stage(stage)]
    assert after[names.model] == before[names.model]
    assert "time_ids" not in after[names.stage("unet")]
    assert not any("max_rows" in after[names.stage(one)] for one in rows if one != "unet_loop")


def test_the_second_encoder_runs_by_onnx_runtime_whatever_runs_the_first(tmp_path):
    output = tmp_path / "served"
    write(open_source(write_sdxl(tmp_path / "source")), output)
    path = output / "text_encoder_2" / "config.pbtxt"
    before = path.read_text()
    by_hand = with_cpu_accelerator(with_accelerator(before, "tensorrt"), "openvino")
    for option, engine in (
        ("--accelerator", "onnxruntime"),
        ("--accelerator", "tensorrt"),
        ("--accelerator", "tensorrt-one-size"),
    ):
        path.write_text(with_accelerator(before, "tensorrt"))
        assert main(["--output", str(output), option, engine]) == 0
        assert path.read_text() == before, engine
    path.write_text(by_hand)
    assert main(["--output", str(output), "--cpu-accelerator", "openvino"]) == 0
    assert path.read_text() == with_accelerator(before, "tensorrt")
