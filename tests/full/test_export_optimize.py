"""The fused graphs for CUDA, evaluated without it; TensorRT's engines, where it is not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from contrib_operators import evaluate, outputs
from diffusers import AutoencoderKL, AutoencoderTiny
from random_models import write_model, write_sdxl

from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.fastdeploy.places import places
from triptych_export import check, fuse_cuda, onnx_files, torch_export, torch_road
from triptych_export.cli import CHECKOUT, main
from triptych_export.progress import Progress
from triptych_export.source import Source, open_source
from triptych_export.stages import Stage, example, stages

PLAIN = {"model.onnx", "model.cuda.onnx"}


FIRST_WIDE = {"widths": (320, 320, 320)}
MODELS = {
    "first": lambda folder: write_model(folder, **FIRST_WIDE),
    "second": lambda folder: write_model(folder, second=True),
    "xl": write_sdxl,
}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request, tmp_path_factory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def export(model, tmp_path_factory) -> tuple[Path, str]:
    """A repository with fused graphs, and what the export said."""
    folder = tmp_path_factory.mktemp("exported") / "served"
    script = [sys.executable, CHECKOUT / "scripts" / "export_stages.py"]
    done = subprocess.run(
        [*script, model, "--output", folder, "--optimize", "cuda"],
        capture_output=True,
        text=True,
        check=True,
    )
    return folder, done.stderr


@pytest.fixture(scope="module")
def served(export) -> Path:
    return export[0]


@pytest.mark.parametrize("name", fuse_cuda.KINDS)
def test_the_fused_graph_computes_the_same_in_half_precision(served, model, name):
    source = open_source(model)
    stage = fused_stage(source, name)
    feeds = example(stage, source, 2, 9, 10, seed=5)
    expected = torch_road.run(torch_road.load(stage, source), [feeds])
    folder = served / name / "1"
    assert {path.name for path in folder.glob("model.*onnx")} == PLAIN
    fused = onnx.load(str(folder / "model.cuda.onnx"))
    error = check.difference(outputs(fused, feeds), expected)
    assert 1e-5 < error < 1e-2


def fused_stage(source: Source, name: str) -> Stage:
    if name not in stages(source):
        pytest.skip("a model with one text encoder")
    return stages(source)[name]


def test_timesteps_and_sizes_become_sines_in_single_precision(served, model):
    """In half precision those of timestep 981.4 would be 0.3 away, and 65536 is infinite there."""
    source, fused = open_source(model), onnx.load(str(served / "unet" / "1" / "model.cuda.onnx"))
    feeds = example(stages(source)["unet"], source, 1, 8, 8, seed=5)
    told = {"timestep": [981.4], "time_ids": [65536, 1023, 1, 0, 515, 1000]}
    feeds.update(
        {
            name: np.array(told[name], "f4").reshape(feeds[name].shape)
            for name in told
            if name in feeds
        }
    )
    sines = [node.output[0] for node in fused.graph.node if node.op_type == "Sin"]
    for name in sines:
        fused.graph.output.insert(0, onnx.ValueInfoProto(name=name))
    found = outputs(fused, feeds)[: len(sines)][::-1]
    assert len(found) == sum(name in feeds for name in told)
    for values, numbers in zip(found, told.values()):
        half = values.shape[-1]
        waves = np.exp(-np.log(10000.0) * np.arange(half) / half)
        expected = np.sin(np.multiply.outer(numbers, waves))
        np.testing.assert_allclose(values.reshape(expected.shape), expected, atol=0.01)


def test_the_last_layer_alone_gives_the_same_on_what_the_whole_unet_gave(served, model):
    source, folder = open_source(model), served / "unet" / "1"
    feeds = example(stages(source)["unet"], source, 2, 8, 8, seed=5)
    whole, alone = (onnx.load(str(folder / f"{name}.cuda.onnx")) for name in ("model", "shallow"))
    *names, deep = [one.name for one in alone.graph.input]
    expected = evaluate(whole, feeds)
    whole.graph.output.insert(0, onnx.ValueInfoProto(name=deep))
    features = evaluate(whole, feeds)
    assert features.dtype == np.float16
    given = {**{name: feeds[name] for name in names}, deep: features}
    np.testing.assert_array_equal(evaluate(alone, given), expected)
    assert (folder / "shallow.cuda.onnx").stat().st_size < 0.5 * whole.ByteSize()


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2", "unet"])
def test_the_fused_graph_says_where_each_layers_weight_is(served, model, name):
    fused_stage(open_source(model), name)
    plain, fused = (
        OnnxGraph(served / name / "1" / file) for file in ("model.onnx", "model.cuda.onnx")
    )
    network, model, expected = places(plain)
    found = places(fused)
    assert found[:2] == (network, model)
    embeddings = {layer for layer in expected if "embedding" in layer and name != "unet"}
    missing = expected.keys() - found[2].keys() - embeddings
    assert not missing
    for layer, place in found[2].items():
        values, part = plain.values(expected[layer].tensor), fused.values(place.tensor)
        values = values.transpose(np.argsort(expected[layer].axes))
        turned = place.of(part).transpose(np.argsort(place.axes))
        assert turned.shape == values.shape == place.shape
        np.testing.assert_allclose(turned, values, rtol=1e-3, atol=1e-6)


def test_queries_keys_and_values_come_each_by_a_product_of_its_own(served):
    graph = onnx.load(str(served / "unet" / "1" / "model.cuda.onnx")).graph
    products = {
        name for node in graph.node if node.op_type in ("MatMul", "Split") for name in node.output
    }
    attention = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    assert attention
    for node in attention:
        assert len(node.input) == 3 and set(node.input) <= products


def test_the_fused_graph_is_that_of_cuda(served):
    kinds = {
        name: {node.op_type for node in onnx.load(str(path)).graph.node}
        for name in ("unet", "vae_decoder")
        for path in (served / name / "1").glob("model.cuda.onnx")
    }
    assert kinds["unet"] >= {"MultiHeadAttention", "SkipGroupNorm", "NhwcConv"}
    assert not kinds["unet"] & {"Softmax", "InstanceNormalization", "Conv"}
    assert kinds["vae_decoder"] >= {"GroupNorm", "SkipGroupNorm", "NhwcConv"}


def test_a_tiny_decoder_is_fused_with_its_channels_last_throughout(model, tmp_path):
    """Two Transposes are left, of the latents and of the picture."""
    torch.manual_seed(3)
    source = dataclasses.replace(open_source(model), folder=tmp_path, tiny_decoder=True)
    AutoencoderTiny().save_pretrained(tmp_path / "tiny_decoder")
    stage = stages(source)["vae_decoder"]
    module = torch_road.load(stage, source)
    onnx_files.save(torch_road.export(module, stage, source, tmp_path), tmp_path)
    assert fuse_cuda.fuse("vae_decoder", tmp_path)["NhwcConv"] == 35
    fused = onnx.load(str(tmp_path / fuse_cuda.NAME))
    kinds = [node.op_type for node in fused.graph.node]
    assert kinds.count("Transpose") == 2 and "Conv" not in kinds
    feeds = example(stage, source, 2, 9, 10, seed=5)
    error = check.difference([evaluate(fused, feeds)], torch_road.run(module, [feeds]))
    assert 1e-5 < error < 1e-2


def test_a_decoder_too_loud_for_half_precision_stays_in_single(tmp_path, capsys):
    folder = write_sdxl(tmp_path / "model")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    stage = stages(open_source(folder))["vae_decoder"]
    for loudness, files in ((1, PLAIN), (1e7, {"model.onnx"})):
        vae.decoder.conv_in.weight.data *= loudness
        vae.save_pretrained(folder / "vae")
        version = tmp_path / f"{loudness}"
        version.mkdir()
        wanted, progress = check.Wanted(cuda=True), Progress(1)
        torch_export.export_stage(stage, open_source(folder), version, wanted, progress)
        assert {path.name for path in version.iterdir()} == files
    assert "half precision's end at 65504: it is served in single" in capsys.readouterr().err


def test_biases_are_fused_where_cuda_has_a_kernel_of_their_width(model, served):
    config = json.loads((model / "unet" / "config.json").read_text())
    fused = onnx.load(str(served / "unet" / "1" / "model.cuda.onnx"))
    biases = {node.op_type for node in fused.graph.node} & {"BiasSplitGelu", "BiasAdd"}
    wide = config["block_out_channels"] == list(FIRST_WIDE["widths"])
    assert biases == ({"BiasSplitGelu", "BiasAdd"} if wide else set())


def test_the_loop_of_a_gpu_has_a_channel_to_its_unet(served):
    assert (
        'key: "channel" value { string_value: "true" }'
        in (served / "unet/config.pbtxt").read_text()
    )


def test_a_fused_graph_that_did_not_run_is_said(export):
    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    for name in ("text_encoder", "unet", "vae_decoder"):
        assert f"{name}: model.cuda.onnx was NOT run" in export[1]


def test_engines_are_not_promised_without_tensorrt(model, tmp_path, capsys):
    assert main([str(model), "--output", str(tmp_path / "served"), "--optimize", "tensorrt"]) == 1
    assert "no TensorRT here" in capsys.readouterr().err
    assert not (tmp_path / "served").exists()
