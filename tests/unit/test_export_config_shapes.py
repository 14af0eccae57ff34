from triptych_export.config_shapes import follow_model

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
