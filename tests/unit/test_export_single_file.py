"""What a file of weights is, told before anything of it is loaded."""

import json
import signal

import pytest

from triptych_export.cli import main
from triptych_export.errors import ExportError
from triptych_export.single_file import (
    UNET_INPUT,
    UNET_TEXT,
    is_sdxl,
    safetensors_shapes,
    text_width,
)
from triptych_export.weight_files import weight_files

WHOLE = {
    UNET_INPUT: (320, 4, 3, 3),
    UNET_TEXT.format(1): (320, 768),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
SDXL = {
    UNET_INPUT: (320, 4, 3, 3),
    UNET_TEXT.format(4): (640, 2048),
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias": (768,),
    "conditioner.embedders.1.model.text_projection": (1280, 1280),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}


def write(path, names, data=b"\0\0\0\0"):
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i, name in enumerate(names)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data * len(names))
    return path


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "a FLUX model"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "a FLUX model"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "a Stable Diffusion 3"),
        ("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias", "SDXL's text"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "a LoRA"),
        ("unet.down_blocks.0.attentions.0.to_q.lora_A.weight", "a LoRA"),
        ("lora_unet_mid_block.hada_w1_a", "a LyCORIS adapter"),
        ("control_model.input_hint_block.0.weight", "a ControlNet"),
        ("image_proj.proj.weight", "an IP-Adapter"),
        ("emb_params", "a textual inversion embedding"),
        ("clip_g", "a textual inversion embedding"),
        ("decoder.conv_in.weight", "a VAE"),
        ("text_model.final_layer_norm.bias", "a text encoder"),
        ("down_blocks.0.resnets.0.conv1.weight", "a UNet in diffusers' layout"),
        ("transformer_blocks.0.attn.to_q.weight", "a diffusion transformer"),
        ("something.else", "not a file that this export knows"),
    ],
)
def test_another_kind_of_model_is_refused_by_its_name(tmp_path, capsys, name, meaning):
    path = write(tmp_path / "file.safetensors", [name])
    assert main([str(path), "--output", str(tmp_path / "served")]) == 1
    assert meaning in capsys.readouterr().err
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n<html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"GGUF\3\0\0\0", "a GGUF file"),
        (b'{"error": "unauthorized"}', "a JSON text"),
        (b"", "is empty"),
    ],
)
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_what_is_no_weights_is_said(tmp_path, capsys, content, meaning, ending):
    path = tmp_path / f"model.{ending}"
    path.write_bytes(content)
    assert main([str(path), "--output", str(tmp_path / "served")]) == 1
    assert meaning in capsys.readouterr().err


def test_a_file_that_is_cut_off_says_how_much_is_missing(tmp_path):
    path = write(tmp_path / "model.safetensors", WHOLE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-6])
    with pytest.raises(ExportError, match=f"cut off: 6 of {len(whole)} bytes are missing"):
        safetensors_shapes(path)


@pytest.mark.parametrize("content", [b"\xff" * 200, b"\4\0\0\0\0\0\0\0nullxx", b"\1\0"])
def test_what_has_no_header_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ExportError, match=r"no \.safetensors file"):
        safetensors_shapes(tmp_path / "model.safetensors")


def test_a_file_that_is_missing_is_said(tmp_path, capsys):
    assert main([str(tmp_path / "no.safetensors"), "--output", str(tmp_path / "served")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_a_whole_model_tells_its_width(tmp_path):
    assert text_width(tmp_path, WHOLE, vae=True) == 768
    second = {name.replace("blocks.1.", "blocks.2."): shape for name, shape in WHOLE.items()}
    assert text_width(tmp_path, {**second, UNET_TEXT.format(2): (320, 1024)}, vae=True) == 1024


def test_sdxl_is_told_by_its_two_text_encoders(tmp_path):
    assert text_width(tmp_path, SDXL, vae=True) == 2048
    assert is_sdxl(SDXL) and not is_sdxl(WHOLE)
    for encoder in ("conditioner.embedders.0", "conditioner.embedders.1"):
        part = {name: shape for name, shape in SDXL.items() if not name.startswith(encoder)}
        with pytest.raises(ExportError, match="no text encoder"):
            text_width(tmp_path, part, vae=True)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("conditioner.embedders.0.model.text_projection", "SDXL's refiner"),
        ("edm_mean", "Playground"),
        ("edm_vpred.sigma_max", "CosXL"),
    ],
)
def test_what_has_sdxls_layout_and_is_not_served(tmp_path, capsys, name, meaning):
    path = write(tmp_path / "file.safetensors", [*SDXL, name])
    assert main([str(path), "--output", str(tmp_path / "served")]) == 1
    assert meaning in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "why"), [("cond_stage_model", "no text encoder"), ("first_stage_model", "no VAE")]
)
def test_a_part_of_a_model_is_no_model(tmp_path, part, why):
    rest = {name: shape for name, shape in WHOLE.items() if not name.startswith(part)}
    with pytest.raises(ExportError, match=why):
        text_width(tmp_path, rest, vae=True)
    if part == "first_stage_model":
        assert text_width(tmp_path, rest, vae=False) == 768


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], (None, True)),
        (["diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin"], (None, False)),
        (["diffusion_pytorch_model.fp16-00001-of-00002.safetensors"], ("fp16", True)),
        (["diffusion_pytorch_model-00001-of-00002.fp16.safetensors"], ("fp16", True)),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], (None, True)),
        (["model.non_ema.safetensors", "model.fp16.safetensors"], ("fp16", True)),
        (["diffusion_pytorch_model.non_ema.bin"], ("non_ema", False)),
        (["model.mine.safetensors"], ("mine", True)),
    ],
)
def test_which_weights_are_taken(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).touch()
    assert weight_files(tmp_path) == expected


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "flax_model.msgpack").touch()
    with pytest.raises(ExportError, match="no weights"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "arguments", [["--vae", "v"], ["--framework", "paddle", "m", "--embedding", "e"]]
)
def test_changes_need_weights_that_diffusers_reads(arguments, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--accelerator", "onnxruntime"])
    assert "needs weights that diffusers reads" in capsys.readouterr().err


def test_single_files_are_not_for_paddle(capsys):
    with pytest.raises(SystemExit):
        main(["model.safetensors", "--framework", "paddle"])
    assert "reads no single file" in capsys.readouterr().err


def test_signals_are_afterwards_whose_they_were(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    assert main([str(tmp_path / "none"), "--output", str(tmp_path / "served")]) == 1
    assert signal.getsignal(signal.SIGTERM) is before
