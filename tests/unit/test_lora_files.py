"""What is read from a LoRA's file, and what is refused, by name."""

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from tests import lora_files
from triptych.errors import InvalidRequest
from triptych.lora import files, folder, names, request
from triptych.lora.request import Lora

CHECKOUT = Path(__file__).parents[2]
NETWORKS = ("unet", "text_encoder")
LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
PAIR = {
    f"{LAYER}.lora_down.weight": np.ones((2, 768), np.float32),
    f"{LAYER}.lora_up.weight": np.ones((128, 2), np.float32),
}


def read(tmp_path, tensors, metadata=None):
    save_file(tensors, tmp_path / "ink.safetensors", metadata)
    return files.read(tmp_path / "ink.safetensors", "ink")


def refused(tmp_path, content):
    path = tmp_path / "ink.safetensors"
    path.write_bytes(content)
    texts = []
    for reads in (files.read, files.networks):
        try:
            reads(path, "ink")
        except InvalidRequest as error:
            assert error.field == "loras" and error.value == "ink"
            texts.append(str(error))
    assert len(str(tmp_path)) and not any(str(tmp_path) in text for text in texts)
    return texts[0]


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft", "old"])
def test_every_layout_says_the_same(tmp_path, layout):
    text = {name: size for name, size in lora_files.TEXT.items() if "self_attn" in name}
    unet = {
        **lora_files.ATTENTION,
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (9, 5),
    }
    made = lora_files.changes(0, unet=unet, text=text)
    path = lora_files.write(tmp_path, "ink", made, layout)
    found = files.read(path, "ink")
    assert files.networks(path, "ink") == set(found.layers) == {"unet", "text_encoder"}
    for (network, layer), (down, up) in made.items():
        change = found.layers[network].pop(names.flat(network, layer))
        np.testing.assert_allclose(change.delta(), lora_files.delta(down, up), atol=1e-5)
    assert not any(found.layers.values())


def test_alpha_is_divided_by_each_layers_rank(tmp_path):
    made = lora_files.changes(0)
    found = files.read(lora_files.write(tmp_path, "ink", made, alpha=3.0), "ink")
    for (network, layer), (down, up) in made.items():
        change = found.layers[network][names.flat(network, layer)]
        expected = 3.0 / len(down) * lora_files.delta(down, up)
        np.testing.assert_allclose(change.delta(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_every_precision(tmp_path, dtype):
    values = np.float32([1.5, -0.25, 3e-3, 0]).astype(dtype)
    tensors = {
        f"{LAYER}.lora_down.weight": values.reshape(1, 4),
        f"{LAYER}.lora_up.weight": np.ones((3, 1), dtype),
    }
    (change,) = read(tmp_path, tensors).layers["unet"].values()
    assert (change.delta() == np.broadcast_to(values.astype(np.float32), (3, 4))).all()


def test_locon_with_a_middle(tmp_path):
    """up, mid and down are three convolutions in turn: 1x1, 3x3, 1x1."""
    random = np.random.RandomState(0)
    parts = {"down": (2, 5, 1, 1), "mid": (2, 2, 3, 3), "up": (4, 2, 1, 1)}
    arrays = {part: random.standard_normal(shape).astype("f") for part, shape in parts.items()}
    layer = "lora_unet_down_blocks_0_resnets_0_conv1"
    tensors = {f"{layer}.lora_{part}.weight": array for part, array in arrays.items()}
    (change,) = read(tmp_path, tensors).layers["unet"].values()
    down, mid, up = arrays["down"][:, :, 0, 0], arrays["mid"], arrays["up"][:, :, 0, 0]
    for y in range(3):
        for x in range(3):
            expected = up @ mid[:, :, y, x] @ down
            np.testing.assert_allclose(change.delta()[:, :, y, x], expected, rtol=1e-4)


def test_pefts_configuration_says_scales(tmp_path):
    config = {
        "unet.lora_alpha": 6,
        "unet.alpha_pattern": {"attn2.to_v": 1},
        "unet.use_rslora": False,
        "text_encoder.lora_alpha": 3,
        "text_encoder_2.lora_alpha": 8,
    }
    tensors = lora_files.tensors(lora_files.changes(0, text_2=lora_files.TEXT), "peft")
    found = read(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(config)})
    for network, alpha in (("text_encoder", 3), ("text_encoder_2", 8)):
        scales = {change.scale * len(change.down) for change in found.layers[network].values()}
        np.testing.assert_allclose(list(scales), alpha)
    for layer, change in found.layers["unet"].items():
        alpha = 1 if layer.endswith("attn2_to_v") else 6
        assert change.scale == alpha / len(change.down)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({f"{LAYER}.dora_scale": np.ones((128, 1), "f")}, "DoRA"),
        ({f"{LAYER}.hada_w1_a": np.ones((2, 2), "f")}, "LoHa"),
        ({f"{LAYER}.lokr_w1": np.ones((2, 2), "f")}, "LoKr"),
        ({f"{LAYER}.diff": np.ones((2, 2), "f")}, "whole differences"),
        ({"emb_params": np.ones((1, 768), "f")}, "textual inversion"),
        ({"model.diffusion_model.out.2.bias": np.ones(4, "f")}, "a whole model"),
        ({"unet.conv_in.lora_B.bias": np.ones(4, "f")}, "LoRA with biases"),
        ({"lora_unet_double_blocks_0_img.alpha": np.ones(1, "f")}, "it is for FLUX"),
        ({"odd": np.ones(4, "f")}, "'odd', which is no tensor of a LoRA"),
        ({f"{LAYER}2.alpha": np.ones(1, "f")}, "has no down"),
        ({f"{LAYER}.alpha": np.ones(2, "f")}, "alpha is no number"),
        ({f"{LAYER}.alpha": np.full(1, 1e30, "f")}, "alpha / rank"),
        ({f"{LAYER}.alpha": np.full(1, np.inf, "f")}, "NaN or infinity"),
        ({f"{LAYER}.lora_down.weight": np.full((2, 768), np.nan, "f")}, "NaN or infinity"),
        ({f"{LAYER}.lora_down.weight": np.ones((3, 768), "f")}, "do not fit"),
        ({f"{LAYER}.lora_down.weight": np.ones((2, 0), "f")}, "do not fit"),
        ({f"{LAYER}.lora_down.weight": np.ones((2, 768), np.int8)}, "is I8, not"),
    ],
)
def test_what_is_no_lora_is_refused_by_its_name(tmp_path, more, named):
    assert named in refused(tmp_path, save({**PAIR, **more}))


def header(text):
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "a LoRA in a .safetensors file"),
        (b"PK\x03\x04 no safetensors at all", "its header has"),
        (save(PAIR)[:-100], "a LoRA in a .safetensors file"),
        (header(b"[" * 100_000 + b"]" * 100_000), "a LoRA in a .safetensors file"),
        (header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "a LoRA in a .safetensors file"),
        ((2**40).to_bytes(8, "little") + b"{}", "its header has"),
        (header(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,999999]}}'), "a LoRA in a"),
        (header(b"{}"), "no tensors"),
    ],
)
def test_damaged_and_deep_files_are_refused(tmp_path, content, named):
    assert named in refused(tmp_path, content)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "ink.safetensors"
    with path.open("wb") as file:
        file.truncate(files.MOST_BYTES + 1)
    with pytest.raises(InvalidRequest, match="bytes, over"):
        files.read(path, "ink")


def test_the_folder_names_what_is_there_now(tmp_path):
    loras = folder.LoraFolder(tmp_path / "loras")
    with pytest.raises(InvalidRequest, match="this server has no LoRA files"):
        loras.find([Lora("ink", 1.0)])
    for name in ("ink", "Ink Wash", "chalk"):
        lora_files.write(tmp_path / "loras", name, lora_files.changes(0))
    (tmp_path / "loras" / "notes.txt").touch()
    assert loras.names() == ["Ink Wash", "chalk", "ink"]
    with pytest.raises(InvalidRequest, match=r"as Ink Wash$|as Ink Wash, ink$"):
        loras.find([Lora("ink-wash", 1.0)])
    found = loras.find([Lora("ink", 0.5), Lora("chalk", 0.0), Lora("Ink Wash", -1.0)])
    assert [(one.name, one.scale) for one in found] == [("Ink Wash", -1.0), ("ink", 0.5)]
    lora_files.write(tmp_path / "loras", "ink", lora_files.changes(0, rank=6))
    assert loras.find([Lora("ink", 0.5)]) != found[1:]


def test_a_file_is_looked_into_once_for_each_state(tmp_path, monkeypatch):
    reads, networks = [], files.networks
    monkeypatch.setattr(files, "networks", lambda *of: reads.append(of) or networks(*of))
    loras = folder.LoraFolder(tmp_path)
    lora_files.write(tmp_path, "ink", lora_files.changes(0))
    for scale in (0.5, 1.0, 1.0):
        (ink,) = loras.find([Lora("ink", scale)])
        assert loras.changed((ink,), NETWORKS) == {"unet", "text_encoder"}
    assert len(reads) == 1
    lora_files.write(tmp_path, "ink", lora_files.changes(0, text={}))
    (ink,) = loras.find([Lora("ink", 1.0)])
    assert loras.changed((ink,), NETWORKS) == {"unet"}
    assert len(reads) == 2
    (tmp_path / "ink.safetensors").write_bytes(b"no LoRA")
    (ink,) = loras.find([Lora("ink", 1.0)])
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=r"a LoRA in a \.safetensors file"):
            loras.changed((ink,), NETWORKS)


def test_a_file_for_two_text_encoders_is_refused_by_a_model_with_one(tmp_path):
    made = lora_files.changes(0, text_2=lora_files.TEXT)
    lora_files.write(tmp_path, "ink", made)
    loras = folder.LoraFolder(tmp_path)
    (ink,) = loras.find([Lora("ink", 1.0)])
    both = (*NETWORKS, "text_encoder_2")
    assert loras.changed((ink,), both) == set(both)
    with pytest.raises(InvalidRequest, match=r"a LoRA for this model, but it is for SDXL \("):
        loras.changed((ink,), NETWORKS)
    known = folder.LoraFolder(tmp_path, 768)
    said = r"^loras: got 'ink'; allowed: a LoRA for Stable Diffusion 1.x, but it is for SDXL \("
    with pytest.raises(InvalidRequest, match=said):
        known.changed((ink,), NETWORKS)


def test_a_file_for_a_model_that_is_not_served_is_refused_with_both_names(tmp_path):
    tensors = {"lora_unet_double_blocks_0_img.alpha": np.ones(1, "f")}
    save_file(tensors, tmp_path / "flux.safetensors")
    said = r"^loras: got 'flux'; allowed: a LoRA for SDXL, but it is for FLUX \(.?lora_unet_double"
    with pytest.raises(InvalidRequest, match=said):
        files.read(tmp_path / "flux.safetensors", "flux", "SDXL")


def test_files_that_no_request_can_name_are_not_listed(tmp_path):
    lora_files.write(tmp_path, "ink", lora_files.changes(0))
    for odd in (b"._ink", b"", b"t\xf6ne", b"x" * 201):
        (tmp_path / os.fsdecode(odd + b".safetensors")).touch()
    loras = folder.LoraFolder(tmp_path, 192)
    assert loras.names() == loras.offered() == ["ink"]
    with pytest.raises(InvalidRequest, match=r"as ink$"):
        loras.find([Lora("inkk", 1.0)])


def test_a_file_for_text_of_another_width_is_not_offered(tmp_path):
    """What has no layer that reads the text may fit, and a bad file is told of when it is asked."""
    unet = tmp_path / "unet"
    config = CHECKOUT / "model_repository/unet/config.pbtxt"
    unet.mkdir()
    (unet / "config.pbtxt").write_text(config.read_text().replace("77 192", "77 768"))
    wide = {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)}
    for layout in ("kohya", "diffusers", "peft"):
        lora_files.write(unet / "loras", f"fits-{layout}", lora_files.changes(0, unet=wide), layout)
        lora_files.write(unet / "loras", f"small-{layout}", lora_files.changes(0), layout)
    others = lora_files.changes(0, unet=lora_files.CONVOLUTIONS, text={})
    lora_files.write(unet / "loras", "no-text", others)
    (unet / "loras" / "bad.safetensors").touch()
    loras = folder.LoraFolder.of(unet)
    fit = ["bad", "fits-diffusers", "fits-kohya", "fits-peft", "no-text"]
    assert loras.offered() == fit
    with pytest.raises(InvalidRequest, match=f"in its folder: {', '.join(fit)}$"):
        loras.find([Lora("xyz", 1.0)])
    assert loras.find([Lora("small-peft", 1.0)])
    (unet / "config.pbtxt").write_text(config.read_text())
    assert [name for name in loras.of(unet).offered() if "fits" in name] == []
    (unet / "config.pbtxt").unlink()
    assert loras.of(unet).offered() == loras.names()


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_the_layers_of_a_second_text_encoder(tmp_path, layout):
    made = lora_files.changes(0, text={}, text_2=lora_files.TEXT)
    found = files.read(lora_files.write(tmp_path, "ink", made, layout), "ink")
    assert found.layers.keys() == {"unet", "text_encoder_2"}
    only = {key: one for key, one in made.items() if key[0] == "text_encoder_2"}
    assert files.read(lora_files.write(tmp_path, "ink", only, layout), "ink").model == "SDXL"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("input_blocks_0_0", "conv_in"),
        ("input_blocks_1_0_in_layers_2", "down_blocks_0_resnets_0_conv1"),
        ("input_blocks_3_0_op", "down_blocks_0_downsamplers_0_conv"),
        ("input_blocks_4_0_skip_connection", "down_blocks_1_resnets_0_conv_shortcut"),
        (
            "input_blocks_5_1_transformer_blocks_1_attn2_to_k",
            "down_blocks_1_attentions_1_transformer_blocks_1_attn2_to_k",
        ),
        ("input_blocks_8_0_emb_layers_1", "down_blocks_2_resnets_1_time_emb_proj"),
        ("middle_block_0_out_layers_3", "mid_block_resnets_0_conv2"),
        ("middle_block_1_proj_in", "mid_block_attentions_0_proj_in"),
        ("middle_block_2_in_layers_2", "mid_block_resnets_1_conv1"),
        ("output_blocks_2_1_proj_out", "up_blocks_0_attentions_2_proj_out"),
        ("output_blocks_2_2_conv", "up_blocks_0_upsamplers_0_conv"),
        ("output_blocks_2_1_conv", "up_blocks_0_upsamplers_0_conv"),
        ("output_blocks_8_0_out_layers_3", "up_blocks_2_resnets_2_conv2"),
        ("time_embed_2", "time_embedding_linear_2"),
        ("label_emb_0_0", "add_embedding_linear_1"),
        ("out_2", "conv_out"),
        ("conv_in", "conv_in"),
        ("down_blocks_1_attentions_0_proj_in", "down_blocks_1_attentions_0_proj_in"),
    ],
)
def test_names_of_single_files(name, expected):
    found = names.read(f"lora_unet_{name}.lora_down.weight")
    assert found == ("unet", expected, "down")


def test_a_thousand_files_are_looked_through_for_a_wrong_name_alone(tmp_path):
    for number in range(1000):
        (tmp_path / f"style-{number:03}.safetensors").touch()
    loras = folder.LoraFolder(tmp_path)
    assert len(loras.names()) == 1000
    assert loras.find([Lora("style-007", 1.0)])
    with pytest.raises(InvalidRequest, match="style-99"):
        loras.find([Lora("style-99x", 1.0)])


@pytest.mark.parametrize(
    "value",
    [
        *("ink", {"name": "ink"}, [3], [{}], [{"name": 3}], [{"name": "", "scale": 1}]),
        *([{"name": name}] for name in ("../ink", "a/b", "a\\b", ".ink", "a\0b", "x" * 201)),
        *([{"name": "a", "scale": scale}] for scale in (4.1, -5, "1", True, float("nan"), None)),
        *([{"name": "a", "more": 1}], [{"name": "a"}] * 2, [{"name": str(n)} for n in range(9)]),
    ],
)
def test_what_no_request_can_ask_for(value):
    with pytest.raises(InvalidRequest, match=r"^loras: "):
        request.read(value)


def test_a_scale_is_one_where_it_is_not_said():
    asked = [{"name": "ink"}, {"name": "chalk", "scale": -4}]
    assert request.read(asked) == (Lora("ink", 1.0), Lora("chalk", -4.0))
    assert request.read([]) == ()
