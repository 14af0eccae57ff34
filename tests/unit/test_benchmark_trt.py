"""benchmarks/trt.py: the repositories that it serves, and what it says of pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import trt
from benchmarks.engine import config
from triptych.fastdeploy import accelerators
from triptych.names import NETWORKS

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


@pytest.fixture
def engines(tmp_path):
    """What each network is to run on after `configure`, and where its engine is kept."""
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORY, repository, ignore=shutil.ignore_patterns("*.onnx"))

    def configured(way, *models):
        networks = [name for name in NETWORKS if (repository / name).is_dir()]
        trt.configure(repository, way, list(models), Path("/engines"))
        asked = {name: accelerators.parse(config(repository, name)) for name in networks}
        return {name: (one.gpu, one.cache_file) for name, one in asked.items()}

    return configured


def test_tensorrt_for_the_networks_that_are_named(engines):
    assert engines("TensorRT", "text_encoder", "vae_decoder") == {
        "text_encoder": ("tensorrt", "/engines/text_encoder.trt"),
        "unet": ("onnxruntime", ""),
        "vae_decoder": ("tensorrt", "/engines/vae_decoder.trt"),
        "vae_encoder": ("onnxruntime", ""),
    }


@pytest.mark.parametrize("way", ["CPU", "CUDA"])
def test_the_other_ways_are_onnx_runtimes(engines, way):
    kept = engines("TensorRT, kept", "unet")
    assert kept["unet"] == ("tensorrt", "/engines/unet.trt")
    assert {gpu for gpu, _ in engines(way, "unet").values()} == {"onnxruntime"}


def test_engines_that_the_cache_holds_are_not_taken_for_built_ones(tmp_path):
    cache, models = tmp_path / "engines", ["text_encoder", "vae_decoder"]
    assert trt.named(list(trt.WAYS), models, cache) == list(trt.WAYS)
    cache.mkdir()
    (cache / "text_encoder_1_sm90.engine").touch()
    assert trt.named(["CPU", "TensorRT"], models, cache) == ["CPU", "TensorRT"]
    (cache / "vae_decoder_1_sm90.engine").touch()
    assert trt.named(list(trt.WAYS), models, cache) == ["CPU", "CUDA", trt.KEPT]


def test_decibels():
    black = np.zeros((4, 4, 3))
    assert trt.psnr(black, black) == float("inf")
    assert trt.psnr(black + 255, black) == 0
    assert trt.psnr(black + 25.5, black) == pytest.approx(20)


def test_a_way_says_what_ran_the_networks():
    fell_back = "vae_decoder runs on CPU (no Tensorrt: no NVIDIA driver)"
    measured = {"ready": 1.0, "picture": [0.5], "psnr": [40.0, 41.0], "runs_on": fell_back}
    row = f"| TensorRT | 1.0 | 500.0 | 40.0 to 41.0 | {fell_back} |"
    assert trt.table({"TensorRT": measured})[2] == row
