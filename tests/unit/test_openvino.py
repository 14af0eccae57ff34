"""The networks under OpenVINO, the package itself, against ONNX Runtime's own provider."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from test_adapted import network

from tests.openvino import IS_INTEL, on_intel
from tests.server.repositories import MODELS
from triptych.denoise.deep_cache import Deep, DeepCache
from triptych.errors import InvalidRequest
from triptych.fastdeploy import openvino
from triptych.fastdeploy.accelerators import Accelerators, ConfigError
from triptych.fastdeploy.kept_tensors import KeptTensors
from triptych.lora.folder import LoraFolder
from triptych.lora.request import Lora

NEAR = {"ov_fp32": 1e-5, "ov_bf16": 0.02}
"""Of the outputs' norm."""
SIZES = ((1, 8, 77), (5, 8, 77), (2, 9, 154), (3, 32, 77))
"""Rows, latents' side, tokens."""


def on_openvino(name, precision, loras=None):
    entry = {"name": "openvino", "parameters": {"precision": precision, "cpu_threads": "2"}}
    asked = {"execution_accelerators": {"cpu_execution_accelerator": [entry]}}
    return network(name, loras, optimization=asked)


def feeds(rows, side=8, tokens=77):
    random = np.random.RandomState(rows)
    return {
        "sample": random.standard_normal((rows, 4, side, side)).astype("f"),
        "timestep": np.linspace(5, 900, rows).astype("f"),
        "encoder_hidden_states": random.standard_normal((rows, tokens, 192)).astype("f"),
    }


def ran(one, tensors, adapters=()):
    (outputs,) = one.run([tensors], [adapters])
    if isinstance(outputs, Exception):
        raise outputs
    return outputs["out_sample"]


def apart(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def loras():
    return LoraFolder(MODELS / "unet" / "loras")


@pytest.fixture(scope="module")
def plain(loras):
    return network("unet", loras)


@pytest.fixture(scope="module", params=NEAR)
def both(request, loras):
    """The UNet under OpenVINO, and how near its outputs must be."""
    one = on_openvino("unet", request.param, loras)
    words = {"ov_fp32": "single precision", "ov_bf16": "bfloat16"}[request.param]
    assert one.provider.startswith(f"OpenVINOExecutionProvider in {words}")
    return one, NEAR[request.param]


@on_intel
def test_any_rows_sizes_and_tokens(both, plain):
    unet, near = both
    for size in SIZES:
        found, expected = (ran(one, feeds(*size)) for one in (unet, plain))
        assert found.shape == expected.shape and found.dtype == np.float32
        assert 0 < apart(found, expected) < near


@on_intel
def test_loras(both, plain, loras):
    unet, near = both
    tensors, adapters = feeds(2), loras.find([Lora("outlines", 1.0)])
    expected = ran(plain, tensors, adapters)
    assert apart(expected, ran(plain, tensors)) > 2 * near
    assert apart(ran(unet, tensors, adapters), expected) < near
    assert apart(ran(unet, tensors), ran(plain, tensors)) < near


@on_intel
def test_deep_cache(both, plain):
    unet, near = both
    drawn = []
    for one in (unet, plain):
        kept = KeptTensors().features
        one.run_deep_cached(feeds(3), DeepCache((Deep("a", 3, 0, True),)), kept)
        later = {**feeds(3), "timestep": np.float32([7, 8, 9])}
        asked = DeepCache((Deep("a", 3, 0, False),))
        drawn.append(one.run_deep_cached(later, asked, kept)["out_sample"])
    assert 0 < apart(*drawn) < near


@on_intel
def test_what_it_cannot_compute_with_is_refused_and_the_next_run_is_right(both, plain):
    unet, near = both
    with pytest.raises(InvalidRequest, match=r"sample: got \[1, 4, 8, 8\]; allowed: values"):
        ran(unet, {**feeds(1), "timestep": np.zeros(2, "f")})
    assert apart(ran(unet, feeds(1)), ran(plain, feeds(1))) < near


def test_a_network_of_tokens_stays_with_onnx_runtime_which_checks_them():
    encoder = on_openvino("text_encoder", "ov_bf16")
    assert encoder.provider.startswith("CPUExecutionProvider in single precision (no ")
    told = "no OpenVINO: it would take input_ids out of range, and draw another picture)"
    assert encoder.provider.endswith(told)
    tokens = {
        "input_ids": np.full((1, 77), 10**6, np.int32),
        "prompt_weights": np.ones((1, 77), "f"),
        "clip_skip": np.zeros((1, 1), np.int32),
    }
    (refused,) = encoder.run([tokens])
    assert isinstance(refused, InvalidRequest)


@pytest.fixture
def unloaded():
    openvino._devices.cache_clear()
    yield
    openvino._devices.cache_clear()


def test_what_is_missing_is_said_when_the_network_is_loaded(unloaded, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "_PACKAGE", "no_such_package")
        with pytest.raises(ConfigError, match=r"openvino: No module .*`pip install .\[openvino\]`"):
            on_openvino("unet", "ov_bf16")
    monkeypatch.delattr(openvino.onnxruntime, "register_execution_provider_library")
    with pytest.raises(ConfigError, match=r"openvino: ONNX Runtime \S+ takes no plugins, 1.23"):
        on_openvino("unet", "ov_bf16")


def test_another_makers_processor_is_refused_each_time(monkeypatch):
    device = SimpleNamespace(vendor="AMD")
    own = SimpleNamespace(ep_name="CPUExecutionProvider", ep_metadata={}, device=device)
    monkeypatch.setattr(openvino, "_devices", lambda: [own])
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"takes Intel's processors alone, this one is of AMD"
        ):
            on_openvino("unet", "ov_bf16")


@pytest.mark.skipif(IS_INTEL, reason="an Intel processor")
def test_this_processor_is_refused_each_time():
    for _ in range(2):
        with pytest.raises(ConfigError, match="takes Intel's processors alone"):
            on_openvino("unet", "ov_bf16")


@pytest.mark.parametrize(
    ("capable", "bf16", "threads", "hint", "words"),
    [
        ("FP32 BF16", True, 3, "bf16", "bfloat16"),
        ("FP32 BF16", False, 0, "f32", "single precision"),
        ("FP32", True, 0, "f32", "single precision: this processor has no bfloat16"),
    ],
)
def test_options(capable, bf16, threads, hint, words, monkeypatch):
    device = SimpleNamespace(ep_metadata={"OPTIMIZATION_CAPABILITIES": capable})
    monkeypatch.setattr(openvino, "_device", lambda: device)
    options, told = openvino.options(Accelerators(cpu_bf16=bf16, cpu_threads=threads))
    settings = json.loads(options["load_config"])["CPU"]
    assert (settings["INFERENCE_PRECISION_HINT"], told) == (hint, words)
    assert settings.get("INFERENCE_NUM_THREADS") == (str(threads) if threads else None)
