"""What a request may ask for, out of the repository's config.pbtxt files."""

import importlib

import pb_utils_fake as fake
import pytest

from triptych.model_files import ModelFiles
from triptych.settings import Limits

MAX_SHAPE = """
optimization { execution_accelerators { gpu_execution_accelerator: [
  { name: "max_shape" parameters { key: "sample" value: "%s" } } ] } }
"""
LIMITED = 'parameters { key: "max_pixels" value { string_value: "8192" } }'
FILES = ModelFiles(height=64, width=64, scheduler_config={})


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """`limits(model, tokenizer=..., unet=...)` for the model, beside configurations that say so."""
    fake.install(monkeypatch, fake.module("24.10", None))
    triton = importlib.import_module("triptych.stages.triton")

    def make(model, own=None, **configs):
        for name, config in configs.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "config.pbtxt").write_text(config)
        arguments = fake.initialize_args(tmp_path / model, model, **(own or {}))
        stage_limits = importlib.import_module("triptych.stages.limits")
        return stage_limits.limits(triton.Model(arguments), FILES)

    return make


def test_a_model_alone_has_the_usual_ones(limits):
    assert limits("tokenizer") == limits("unet_loop") == Limits()


def test_the_loop_has_the_tokenizers(limits):
    own = {"max_pixels": "8192"}
    assert limits("tokenizer", own) == Limits(max_pixels=8192)
    assert limits("unet_loop", {"max_rows": "8"}, tokenizer=LIMITED) == Limits(max_pixels=8192)
    with pytest.raises(ValueError, match=r"^parameter max_pixels: got"):
        limits("unet_loop", tokenizer=LIMITED.replace("8192", "x"))


@pytest.mark.parametrize("model", ["tokenizer", "unet_loop"])
def test_sides_end_where_the_unets_do(limits, model):
    assert limits(model, unet=MAX_SHAPE % "32 4 96 64") == Limits(max_height=768, max_width=512)
    assert limits(model, unet=MAX_SHAPE % "what") == Limits()
    assert limits(model, unet="") == Limits()
    if model == "tokenizer":
        own = {"max_height": "256", "max_width": "4096"}
        narrow = limits(model, own, unet=MAX_SHAPE % "32 4 96 64")
        assert narrow == Limits(max_height=256, max_width=512)


def test_a_configuration_that_cannot_be_read_is_a_load_error(limits):
    with pytest.raises(ValueError, match=r"unet/config\.pbtxt: cannot be read"):
        limits("tokenizer", unet="}")
