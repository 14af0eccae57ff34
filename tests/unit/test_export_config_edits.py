import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from triptych.fastdeploy.accelerators import parse
from triptych_export.cli import main
from triptych_export.config_edits import (
    follow_model,
    with_accelerator,
    with_cache_file,
    with_cpu_accelerator,
    with_input,
    with_map,
    with_one_size,
    with_parameter,
    without_description,
)
from triptych_export.held import held

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"

CONFIG = """
name: "unet"
input [ { name: "sample" data_type: TYPE_FP32 dims: [ 4, -1, -1 ] } ]
optimization {
  execution_accelerators {
    gpu_execution_accelerator : [
      {
        name: "tensorrt"
        # Precision of the engine
        parameters { key: "precision" value: "trt_fp16" }
      },
      {
        name: "min_shape"
        parameters { key: "sample" value: "1 4 16 16" }
        parameters { key: "encoder_hidden_states" value: "1 77 256" }
      },
      {
        name : "opt_shape"
        parameters { key : "sample", value : "2 4 32 32" }
        parameters {
          key: "encoder_hidden_states"
          value: "2 77 256"
        }
      },
      {
        name: "max_shape"
        parameters { key: "sample" value: "32 4 48 48" }
        parameters { key: "timestep" value: "32" }
        parameters { key: "encoder_hidden_states" value: "32 77 256" }
      }
    ]
  }
}
parameters { key: "sample" value: { string_value: "1 2 3 4" } }
"""


def test_fixed_dimensions_change_everywhere_and_sizes_only_widen():
    new = follow_model(CONFIG, {"sample": (-4, 96, 96), "encoder_hidden_states": (-77, -1024)})
    expected = (
        CONFIG.replace("77 256", "77 1024").replace("4 32 32", "4 96 96").replace("48 48", "96 96")
    )
    assert new == expected


def test_a_small_model_lowers_the_minimum():
    new = follow_model(CONFIG, {"sample": (-4, 8, 24)})
    expected = CONFIG.replace("1 4 16 16", "1 4 8 16").replace("2 4 32 32", "2 4 8 24")
    assert new == expected


def test_fitting_twice_changes_nothing_more():
    sizes = {"sample": (-4, 64, 64), "encoder_hidden_states": (-77, -768)}
    once = follow_model(CONFIG, sizes)
    assert once != CONFIG
    assert follow_model(once, sizes) == once


def test_a_configuration_without_shapes_stays_as_it_is():
    config = 'name: "unet"\nparameters { key: "sample" value: "1 4 8 8" }\n'
    assert follow_model(config, {"sample": (-4, 64, 64)}) == config


def test_the_engine_gets_a_file_once():
    once = with_cache_file(CONFIG, "/models/unet/tensorrt.engine")
    entry = ' parameters { key: "cache_file" value: "/models/unet/tensorrt.engine" }'
    fp16 = 'parameters { key: "precision" value: "trt_fp16" }'
    assert once == CONFIG.replace(fp16, fp16 + entry)
    moved = with_cache_file(once, "/elsewhere/tensorrt.engine")
    assert moved == once.replace("/models/unet/tensorrt", "/elsewhere/tensorrt")


@pytest.mark.parametrize(("model", "count"), [("text_encoder", 9), ("unet", 9), ("vae_decoder", 3)])
def test_the_committed_configurations_are_understood(model, count):
    """Every shape in them is found: sizes that none of them has appear everywhere."""
    config = (REPOSITORY / model / "config.pbtxt").read_text(encoding="utf-8")
    shapes = re.findall(r'key: "(\w+)" value: "([\d ]+)"', config)
    shapes = [(name, dims) for name, dims in shapes if name != "cpu_threads"]
    assert len(shapes) == count
    sizes = {name: tuple(-999 for _ in dims.split()[1:]) for name, dims in shapes}
    new = follow_model(config, sizes)
    for name, dims in shapes:
        batch, *rest = dims.split()
        changed = f'key: "{name}" value: "{" ".join([batch, *["999"] * len(rest)])}"'
        assert changed in new
    assert "cache_file" in with_cache_file(config, "/engine")


def words(model, config, wanted):
    """`config` with what the text encoder takes beside tokens, or without."""
    inputs = (("prompt_weights", "input_ids", [-1]), ("clip_skip", "prompt_weights", [1]))
    for (name, like, dims), kind in zip(inputs, ("TYPE_FP32", "TYPE_INT32")):
        if model == "sd_ensemble":
            config = with_map(config, name, like, wanted)
        else:
            config = with_input(config, name, like, dims if wanted else None, kind)
    return config


def test_a_text_encoder_of_tokens_alone_loses_its_other_inputs():
    """In its configuration and in the ensemble's; the rest is as it was."""
    for model, more in (("text_encoder", 8), ("sd_ensemble", 4)):
        config = (REPOSITORY / model / "config.pbtxt").read_text(encoding="utf-8")
        less = words(model, config, False)
        told = text_format.Parse(less, model_config_pb2.ModelConfig())
        assert len(config.splitlines()) - len(less.splitlines()) == more
        if model == "text_encoder":
            assert [one.name for one in told.input] == ["input_ids"]
            assert "clip_skip" not in less.partition("input [")[2]
        else:
            assert less.count("input_map") == config.count("input_map") - 4
        assert words(model, less, False) == less
        assert words(model, less, True) == words(model, config, True) == config


def test_a_parameter_is_added_where_there_is_none():
    entry = 'parameters { key: "channel" value { string_value: "%s" } }\n'
    with_channel = with_parameter(CONFIG, "channel", "true")
    assert with_channel == CONFIG.rstrip() + "\n" + entry % "true"
    assert with_parameter(with_channel, "channel", "true") == with_channel
    without = CONFIG + entry % "false"
    assert with_parameter(without, "channel", "true") == without


NETWORKS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


def accelerators(path: Path):
    """What our own backend reads in the config.pbtxt `path`."""
    message = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    return parse(json_format.MessageToDict(message, preserving_proto_field_name=True))


def test_one_command_changes_the_accelerator_of_a_repository_and_back(tmp_path):
    served = Path(shutil.copytree(REPOSITORY, tmp_path / "served"))
    before = {path: path.read_bytes() for path in served.rglob("*") if path.is_file()}
    command = ["--output", str(served), "--accelerator"]
    assert main([*command, "onnxruntime"]) == 0
    for model in NETWORKS:
        path = served / model / "config.pbtxt"
        assert accelerators(path).gpu == "onnxruntime" and accelerators(path).gpu_fp16
        assert accelerators(path).shapes == accelerators(REPOSITORY / model / "config.pbtxt").shapes
        assert 'name: "tensorrt"' not in path.read_text()
    assert main([*command, "tensorrt"]) == 0
    assert {path: path.read_bytes() for path in served.rglob("*") if path.is_file()} == before


def test_a_repository_that_an_export_writes_to_is_refused(tmp_path, capsys):
    served = Path(shutil.copytree(REPOSITORY, tmp_path / "served"))
    with held(served):
        assert main(["--output", str(served), "--accelerator", "onnxruntime"]) == 1
    assert f"{served}: another export is writing to it" in capsys.readouterr().err
    before, after = ((one / "unet/config.pbtxt").read_text() for one in (REPOSITORY, served))
    assert after == before


def test_the_engines_of_a_model_that_is_not_there_cannot_be_changed(tmp_path, capsys):
    served = Path(shutil.copytree(REPOSITORY, tmp_path / "served"))
    command = ["--output", str(served), "--name", "ink", "--accelerator", "onnxruntime"]
    assert main(command) == 1
    assert "ink.text_encoder/config.pbtxt is missing" in capsys.readouterr().err
    assert not list(served.glob("ink*"))


def test_one_command_changes_the_engine_for_processors_and_back(tmp_path, capsys):
    served = Path(shutil.copytree(REPOSITORY, tmp_path / "served"))
    before = {path: path.read_bytes() for path in served.rglob("*") if path.is_file()}
    command = ["--output", str(served), "--cpu-accelerator"]
    for engine, bf16 in (("openvino-bf16", True), ("openvino", False)):
        assert main([*command, engine]) == 0
        for model in NETWORKS:
            asked = accelerators(served / model / "config.pbtxt")
            plain = accelerators(REPOSITORY / model / "config.pbtxt")
            on_it = model != "text_encoder"
            cpu = {"cpu": "openvino" if on_it else "onnxruntime", "cpu_bf16": bf16 and on_it}
            assert asked == replace(plain, **cpu)
    assert "openvino-bf16 runs its UNet and VAE on a processor" in capsys.readouterr().out
    assert main([*command, "onnxruntime"]) == 0
    assert {path: path.read_bytes() for path in served.rglob("*") if path.is_file()} == before


def test_other_parameters_for_processors_stay():
    block = "optimization { execution_accelerators { %sgpu_execution_accelerator : [ ] } }"
    threads = 'parameters { key: "cpu_threads" value: "4" }'
    config = block % f'cpu_execution_accelerator : [ {{ name: "onnxruntime" {threads} }} ] '
    bf16 = with_cpu_accelerator(config, "openvino", "ov_bf16")
    parsed = text_format.Parse(bf16, model_config_pb2.ModelConfig())
    (entry,) = parsed.optimization.execution_accelerators.cpu_execution_accelerator
    assert entry.name == "openvino"
    assert dict(entry.parameters) == {"cpu_threads": "4", "precision": "ov_bf16"}
    back = text_format.Parse(
        with_cpu_accelerator(bf16, "onnxruntime"), model_config_pb2.ModelConfig()
    )
    assert back == text_format.Parse(config, model_config_pb2.ModelConfig())
    with pytest.raises(ValueError, match="it has no execution_accelerators"):
        with_cpu_accelerator("# execution_accelerators {}\n", "openvino")


def test_the_decoder_goes_on_tensorrt_for_the_models_own_size_alone(tmp_path):
    served = Path(shutil.copytree(REPOSITORY, tmp_path / "served"))
    command = ["--output", str(served), "--accelerator"]
    assert main([*command, "tensorrt-one-size"]) == 0
    found = {model: accelerators(served / model / "config.pbtxt") for model in NETWORKS}
    assert {model: one.gpu for model, one in found.items()} == {
        "text_encoder": "tensorrt",
        "unet": "onnxruntime",
        "vae_decoder": "tensorrt",
        "vae_encoder": "onnxruntime",
    }
    assert {model: one.cache_file for model, one in found.items() if one.cache_file} == {
        model: str(served / model / "tensorrt.engine") for model in ("text_encoder", "vae_decoder")
    }
    decoder = found["vae_decoder"]
    assert decoder.workspace_size == 16 * 2**30 and decoder.gpu_fp16
    assert {name: one["latent_sample"] for name, one in decoder.shapes.items()} == {
        "min_shape": (1, 4, 32, 32),
        "opt_shape": (1, 4, 32, 32),
        "max_shape": (8, 4, 32, 32),
    }
    once = (served / "vae_decoder" / "config.pbtxt").read_text()
    assert with_one_size(once) == once
    larger = with_one_size(follow_model(once, {"latent_sample": (-4, 96, 64)}))
    assert re.findall(r'"(\d 4 \d+ \d+)"', larger) == ["1 4 96 64", "1 4 96 64", "8 4 96 64"]
    assert main([*command, "onnxruntime"]) == 0
    text = (served / "vae_decoder" / "config.pbtxt").read_text()
    assert "workspace_size" not in text and 'name: "tensorrt"' not in text


def test_what_is_said_elsewhere_stays_and_the_engines_file_goes():
    other = """# gpu_execution_accelerator : [ { name: "tensorrt" } ]
optimization { execution_accelerators {
  cpu_execution_accelerator : [ { name: "onnxruntime" } ]
  gpu_execution_accelerator : [ { name: "tensorrt" %s } ]
} }
parameters { key: "of" value { string_value: "tensorrt" } }
"""
    fp32 = 'parameters { key: "precision" value: "%s_fp32" }'
    cached = fp32 % "trt" + ' parameters { key: "cache_file" value: "/a/tensorrt.engine" }'
    expected = (other % fp32 % "ort").replace('[ { name: "tensorrt" p', '[ { name: "onnxruntime" p')
    assert with_accelerator(other % cached, "onnxruntime") == expected
    assert with_accelerator(expected, "tensorrt") == other % fp32 % "trt"


def test_a_network_on_tensorrt_says_what_fastdeploy_does_without_a_gpu():
    for model in NETWORKS:
        config = (REPOSITORY / model / "config.pbtxt").read_text()
        on_tensorrt = 'name: "tensorrt"' in config
        assert on_tensorrt == (model == "text_encoder")
        if on_tensorrt:
            assert "aborts with tensorrt" in config and "--accelerator onnxruntime" in config


@pytest.mark.parametrize(
    "arguments",
    [[], ["model", "--accelerator", "onnxruntime", "--optimize", "tensorrt"]],
)
def test_a_command_that_means_nothing_is_refused(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_folder_without_networks_is_no_repository(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["--output", str(folder), "--accelerator", "onnxruntime"]) == 1
    assert "config.pbtxt is missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_input_for_each_row_comes_with_its_shapes_and_goes():
    config = (REPOSITORY / "unet" / "config.pbtxt").read_text()
    wide = with_input(config, "timestep_cond", "timestep", [256])
    message = text_format.Parse(wide, model_config_pb2.ModelConfig())
    assert {one.name: list(one.dims) for one in message.input}["timestep_cond"] == [256]
    shapes = parse(json_format.MessageToDict(message, preserving_proto_field_name=True)).shapes
    for profile, batch in (("min_shape", 1), ("opt_shape", 2), ("max_shape", 32)):
        assert shapes[profile]["timestep_cond"] == (batch, 256)
    assert with_input(wide, "timestep_cond", "timestep", [512]) == wide.replace(
        "256 ]", "512 ]"
    ).replace(' 256"', ' 512"')
    assert with_input(wide, "timestep_cond", "timestep", None) == config
    assert with_input(config, "timestep_cond", "timestep", None) == config


def test_an_input_of_the_latents_size_comes_with_its_shapes_and_goes():
    config = (REPOSITORY / "unet" / "config.pbtxt").read_text()
    wide = config
    for name, channels in (("mask", 1), ("masked_image_latents", 4)):
        wide = with_input(wide, name, "sample", [channels, -1, -1])
    message = text_format.Parse(wide, model_config_pb2.ModelConfig())
    dims = {one.name: list(one.dims) for one in message.input}
    assert (dims["mask"], dims["masked_image_latents"]) == ([1, -1, -1], [4, -1, -1])
    shapes = parse(json_format.MessageToDict(message, preserving_proto_field_name=True)).shapes
    for profile in ("min_shape", "opt_shape", "max_shape"):
        batch, _, *size = shapes[profile]["sample"]
        assert shapes[profile]["mask"] == (batch, 1, *size)
        assert shapes[profile]["masked_image_latents"] == (batch, 4, *size)
    for name in ("mask", "masked_image_latents"):
        wide = with_input(wide, name, "sample", None)
    assert wide == config == with_input(config, "mask", "sample", None)


def test_a_folder_in_the_way_is_one_line_and_nothing_changes(tmp_path, capsys):
    served = Path(shutil.copytree(REPOSITORY, tmp_path / "served"))
    (served / "vae_decoder" / "config.pbtxt.new").mkdir()
    before = {path: path.read_bytes() for path in served.rglob("*") if path.is_file()}
    assert main(["--output", str(served), "--accelerator", "onnxruntime"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("export_stages: ") and "config.pbtxt.new" in said
    assert len(said.splitlines()) == 1
    assert {path: path.read_bytes() for path in served.rglob("*") if path.is_file()} == before


def test_what_was_said_of_the_demo_model_is_not_said_of_another():
    config = (REPOSITORY / "sd_ensemble" / "config.pbtxt").read_text()
    described = text_format.Parse(config, model_config_pb2.ModelConfig())
    assert set(described.parameters) == {"title", "about", "has_samples"}
    plain = without_description(with_parameter(config, "kept", "yes"))
    message = text_format.Parse(plain, model_config_pb2.ModelConfig())
    assert {key: value.string_value for key, value in message.parameters.items()} == {"kept": "yes"}
    assert "For people" not in plain
    assert message.ensemble_scheduling == described.ensemble_scheduling
