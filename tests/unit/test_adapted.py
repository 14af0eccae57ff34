"""The networks with LoRAs, against weights that were changed by hand in the ONNX files."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import lora_files
from tests.server.repositories import MODELS, linked
from tests.unit.test_configs import config
from triptych.errors import InvalidRequest
from triptych.fastdeploy.adapted import LEAST_BYTES, Adapted
from triptych.fastdeploy.lru import Lru
from triptych.fastdeploy.network import Network
from triptych.fastdeploy.onnx_graph import OnnxGraph
from triptych.lora import files
from triptych.lora.folder import LoraFolder
from triptych.lora.request import Lora
from triptych.pipeline import Pipeline

INK = lora_files.changes(1, unet={**lora_files.ATTENTION, **lora_files.CONVOLUTIONS})
CHALK = lora_files.changes(2, text={})
REQUEST = {
    "prompt": "a red circle",
    "num_inference_steps": 2,
    "height": 64,
    "width": 64,
    "seed": 1,
    "guidance_scale": 5.0,
}


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    lora_files.write(folder, "ink", INK, "kohya", 2.0)
    lora_files.write(folder, "chalk", CHALK, "peft")
    lora_files.write(folder, "words", lora_files.changes(3, unet={}))
    return LoraFolder(folder)


def changed(model, scaled):
    """The model with layers' changes, (layer, change), added to its weights."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer, change in scaled:
        layer = layer.replace("text_model.", "")
        plain, turned = f"{layer}.weight.half", f"{layer}.weight.T.half"
        tensor = tensors[plain if plain in tensors else turned]
        values = numpy_helper.to_array(tensor).astype(np.float64)
        values = values + (change if plain in tensors else change.T)
        # In single precision: the Cast that follows leaves it as it is.
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return model.SerializeToString()


def by_hand(network, *scaled):
    """That network's model with LoRAs of (changes, alpha, scale) in its weights."""
    model = onnx.load(str(MODELS / network / "1" / "model.onnx"))
    return changed(
        model,
        [
            (
                layer,
                scale * (1 if alpha is None else alpha / len(down)) * lora_files.delta(down, up),
            )
            for changes, alpha, scale in scaled
            for (own, layer), (down, up) in changes.items()
            if own == network
        ],
    )


def network(name, loras, **more):
    declared = config(name)
    kinds = {"input": declared.input, "output": declared.output}
    model_config = {
        kind: [{"name": one.name, "data_type": f"TYPE_{one.DESCRIPTOR and ''}"} for one in tensors]
        for kind, tensors in kinds.items()
    }
    for kind, tensors in kinds.items():
        for entry, tensor in zip(model_config[kind], tensors):
            field = tensor.DESCRIPTOR.fields_by_name["data_type"]
            entry["data_type"] = field.enum_type.values_by_number[tensor.data_type].name
    return Network(MODELS / name / "1", {**model_config, **more}, loras=loras)


@pytest.fixture(scope="module")
def feeds():
    random = np.random.RandomState(0)
    return {
        "sample": random.standard_normal((2, 4, 8, 8)).astype("f"),
        "timestep": np.float32([5, 900]),
        "encoder_hidden_states": random.standard_normal((2, 77, 192)).astype("f"),
    }


def ran(network, loras, feeds, *asked):
    (outputs,) = network.run([feeds], [loras.find(asked)])
    if isinstance(outputs, Exception):
        raise outputs
    return outputs["out_sample"]


@pytest.mark.parametrize("bound", [False, True])
def test_the_unet_is_the_one_with_the_changes_in_its_weights(loras, feeds, bound):
    """On the host, and as on a GPU: weights at fixed addresses, overwritten set by set."""
    import onnxruntime

    unet = network("unet", loras)
    plain = ran(unet, loras, feeds)
    if bound:
        unet.bind((2, 4), ("cpu", 0))
    ink, chalk = (INK, 2.0, 0.8), (CHALK, None, -0.5)
    asked = {"ink": Lora("ink", 0.8), "chalk": Lora("chalk", -0.5)}
    # What chalk changes is less than what ink does, for which the graph is loaded anew.
    for sets in (["chalk"], ["ink"], ["ink", "chalk"], ["chalk"], ["ink"]):
        scaled = [{"ink": ink, "chalk": chalk}[name] for name in sets]
        session = onnxruntime.InferenceSession(by_hand("unet", *scaled))
        expected = session.run(None, feeds)[0]
        found = ran(unet, loras, feeds, *(asked[name] for name in sets))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.abs(found - plain).max() > 0.05
        assert (ran(unet, loras, feeds) == plain).all()
    assert (ran(unet, loras, feeds, Lora("ink", 0.0)) == plain).all()
    assert (ran(unet, loras, feeds, Lora("words", 1.0)) == plain).all()


def test_more_rows_than_max_rows_run_one_after_the_other_with_loras_too(loras, feeds, monkeypatch):
    asked = Lora("chalk", 1.0)
    expected = ran(network("unet", loras), loras, feeds, asked)
    runs, run = [], Adapted.run
    monkeypatch.setattr(Adapted, "run", lambda *of: runs.append(of[-1]) or run(*of))
    most = {"max_rows": {"string_value": "1"}}
    found = ran(network("unet", loras, parameters=most), loras, feeds, asked)
    assert runs == [1, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_requests_of_other_sets_are_other_runs(loras, feeds):
    unet = network("unet", loras)
    sets = [loras.find(one) for one in ([], [Lora("ink", 1.0)], [Lora("chalk", 1.0)])]
    alone = [unet.run([feeds], [one])[0]["out_sample"] for one in sets]
    together = unet.run([feeds] * 3, sets)
    for one, other in zip(alone, together):
        np.testing.assert_array_equal(one, other["out_sample"])


def test_a_file_for_another_model_is_refused_with_both_names(tmp_path, feeds):
    wide = {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (128, 768)}
    lora_files.write(tmp_path, "wide", lora_files.changes(0, unet=wide, text={}))
    lora_files.write(tmp_path, "deep", lora_files.changes(0, unet={"up_blocks.3.x.to_q": (8, 8)}))
    loras = LoraFolder(tmp_path)
    unet = network("unet", loras)
    allowed = r"a LoRA for a model whose text has 192 channels, but it is for Stable Diffusion 1.x"
    with pytest.raises(InvalidRequest, match=allowed):
        ran(unet, loras, feeds, Lora("wide", 1.0))
    with pytest.raises(InvalidRequest, match=r"up_blocks_3_x_to_q is \[8, 8\] there and none here"):
        ran(unet, loras, feeds, Lora("deep", 1.0))
    assert ran(unet, loras, feeds).any()


def test_a_file_removed_or_replaced_while_it_is_used(tmp_path, feeds):
    path = lora_files.write(tmp_path, "ink", CHALK)
    loras = LoraFolder(tmp_path)
    unet = network("unet", loras)
    old = loras.find([Lora("ink", 1.0)])
    (before,) = unet.run([feeds], [old])
    path.unlink()
    (again,) = unet.run([feeds], [old])  # its weights are kept
    assert (again["out_sample"] == before["out_sample"]).all()
    other = (old[0]._replace(scale=0.5),)
    assert not isinstance(unet.run([feeds], [other])[0], Exception)  # so is what was read
    fresh = network("unet", loras)
    assert "loras: got 'ink'" in str(fresh.run([feeds], [old])[0])
    lora_files.write(tmp_path, "ink", INK)
    assert "this one was replaced" in str(fresh.run([feeds], [old])[0])
    new = ran(unet, loras, feeds, Lora("ink", 1.0))
    assert np.abs(new - before["out_sample"]).max() > 0.05


def test_a_graph_for_loras_is_expected_where_a_file_fits_the_network(tmp_path):
    loras = LoraFolder(tmp_path)
    adapted = {name: network(name, loras)._adapt() for name in ("unet", "text_encoder")}

    def expected():
        return {name for name, one in adapted.items() if one.expected()}

    assert expected() == set()
    wide = {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (128, 768)}
    lora_files.write(tmp_path, "another model's", lora_files.changes(0, unet=wide, text={}))
    (tmp_path / "broken.safetensors").write_bytes(b"no LoRA")
    assert expected() == set()
    lora_files.write(tmp_path, "chalk", lora_files.changes(0, text={}))
    assert expected() == {"unet"}
    lora_files.write(tmp_path, "ink", INK)
    assert expected() == {"unet", "text_encoder"}


def test_files_for_other_networks_alone_are_not_read_whole_for_that(tmp_path, monkeypatch):
    lora_files.write(tmp_path, "chalk", lora_files.changes(0, text={}))
    adapted = network("text_encoder", LoraFolder(tmp_path))._adapt()
    monkeypatch.setattr(files, "read", None)
    assert not adapted.expected()


def test_sets_that_leave_a_network_as_it_is_are_no_more_than_a_number(loras):
    unet = network("unet", loras)._adapt()
    unet._sets = Lru(3 * LEAST_BYTES, LEAST_BYTES)
    for scale in range(1, 9):
        assert unet.run(loras.find([Lora("words", scale / 8)]), {}, 2) is None
    assert len(unet._sets._kept) == 3


def test_a_network_whose_graph_keeps_no_names_refuses(tmp_path, loras, feeds):
    folder = shutil.copytree(MODELS / "unet" / "1", tmp_path / "1")
    model = onnx.load(str(folder / "model.onnx"))
    del model.metadata_props[:]
    onnx.save(model, folder / "model.onnx")
    unet = network("unet", loras)
    unet._folder = folder
    with pytest.raises(InvalidRequest, match="export the model again"):
        ran(unet, loras, feeds, Lora("ink", 1.0))


def test_sets_take_no_more_than_their_bytes():
    kept = Lru(100)
    made = []
    for number in (1, 2, 3, 1, 4, 2, 1):
        kept.get(number, lambda number=number: (made.append(number), 40))
        assert kept.bytes <= 100
    assert made == [1, 2, 3, 1, 4, 2, 1]
    assert Lru(10).get("large", lambda: ("kept", 1000)) == "kept"


def test_weights_in_a_file_of_their_own(tmp_path):
    model = onnx.load(str(MODELS / "unet" / "1" / "model.onnx"))
    onnx.save_model(
        model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="model.onnx.data"
    )
    one, other = OnnxGraph(MODELS / "unet" / "1" / "model.onnx"), OnnxGraph(tmp_path / "model.onnx")
    assert one.weights.keys() == other.weights.keys()
    for name in ("conv_in.weight", "conv_out.bias"):
        assert (one.values(name) == other.values(name)).all()


def test_the_pipelines_picture_with_the_text_encoder(tmp_path):
    """A picture with LoRAs is the picture of a model that has them in its weights."""
    asked = [{"name": "ink", "scale": 0.8}, {"name": "chalk", "scale": -0.5}]
    served = linked(tmp_path / "served", MODELS)
    lora_files.write(_own_unet(served) / "loras", "ink", INK, "kohya", 2.0)
    lora_files.write(served / "unet" / "loras", "chalk", CHALK, "peft")
    baked = linked(tmp_path / "baked", MODELS)
    for name in ("unet", "text_encoder"):
        (baked / name).unlink()
        shutil.copytree(MODELS / name, baked / name)
        model = by_hand(name, (INK, 2.0, 0.8), (CHALK, None, -0.5))
        (baked / name / "1" / "model.onnx").write_bytes(model)
    pipeline = Pipeline(served)
    found = pipeline.pixels(json.dumps({**REQUEST, "loras": asked})).astype(int)
    expected = Pipeline(baked).pixels(json.dumps(REQUEST)).astype(int)
    assert np.abs(found - expected).max() <= 1
    words = {**REQUEST, "prompt": "a red circle<lora:ink:0.8><lora:chalk:-0.5>"}
    webui = pipeline.pixels(json.dumps({**words, "prompt_syntax": "webui"})).astype(int)
    assert np.abs(webui - found).max() <= 1
    plain = pipeline.pixels(json.dumps(REQUEST)).astype(int)
    assert np.abs(plain - found).max() > 20
    alone = linked(tmp_path / "alone", MODELS)
    assert (Pipeline(alone).pixels(json.dumps(REQUEST)) == plain).all()


def _own_unet(repository):
    folder = repository / "unet"
    folder.unlink()
    folder.mkdir()
    for path in (MODELS / "unet").iterdir():
        if path.name != "loras":
            (folder / path.name).symlink_to(path)
    return folder
