import re
from pathlib import Path

import pytest

from triptych_export.config_edits import follow_model, with_cache_file, with_parameter

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


@pytest.mark.parametrize(("model", "count"), [("text_encoder", 3), ("unet", 9), ("vae_decoder", 3)])
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


def test_a_parameter_is_added_where_there_is_none():
    entry = 'parameters { key: "channel" value { string_value: "%s" } }\n'
    with_channel = with_parameter(CONFIG, "channel", "true")
    assert with_channel == CONFIG.rstrip() + "\n" + entry % "true"
    assert with_parameter(with_channel, "channel", "true") == with_channel
    without = CONFIG + entry % "false"
    assert with_parameter(without, "channel", "true") == without
