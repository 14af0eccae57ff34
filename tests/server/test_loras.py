"""LoRAs by request: files that come and go, sets that share one server, and what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests import lora_files
from tests.server import repositories
from tests.server.calls import SMALL, Calls, pixels, request
from triptych.client import Client
from triptych.picture.metadata import read_settings
from triptych.pipeline import Pipeline
from triptych.server.running import RunningServer

INK = lora_files.changes(1)
CHALK = lora_files.changes(2, unet={**lora_files.ATTENTION, **lora_files.CONVOLUTIONS}, text={})


@pytest.fixture(scope="module")
def loras(repository, tmp_path_factory):
    """A server, and the folder of its LoRAs, which is empty at first."""
    folder = tmp_path_factory.mktemp("loras")
    models = repositories.linked(folder / "models", repository)
    files = repositories.own(models, "unet") / "loras"
    files.mkdir(exist_ok=True)
    with RunningServer(models, folder / "server.log") as server:
        calls = Calls(server.grpc)
        calls.url = server.grpc
        yield calls, files, models
        calls.close()


def asked(*names, **settings):
    loras = [{"name": name, "scale": scale} for name, scale in names]
    return request(**SMALL, **({"loras": loras} if loras else {}), **settings)


def test_a_file_is_there_at_the_next_request_and_read_again_when_replaced(loras):
    calls, files, models = loras
    (plain,) = calls.pictures(asked())
    with pytest.raises(InferenceServerException, match="this server has no LoRA files") as caught:
        calls.pictures(asked(("ink", 0.8)))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    lora_files.write(files, "ink", INK)
    with Client(calls.url) as client:
        assert client.loras() == ["ink"]
    (first,) = calls.pictures(asked(("ink", 0.8)))
    assert [one._asdict() for one in read_settings(first).loras] == [{"name": "ink", "scale": 0.8}]
    alone = Pipeline(models).pixels(asked(("ink", 0.8)).decode())
    assert np.abs(pixels(first).astype(int) - alone).max() <= 1
    assert calls.pictures(asked()) == [plain]
    with pytest.raises(InferenceServerException, match=r"in its folder, as ink"):
        calls.pictures(asked(("inky", 0.8)))
    lora_files.write(files, "ink", CHALK)
    (second,) = calls.pictures(asked(("ink", 0.8)))
    assert pixels(second).tolist() != pixels(first).tolist() != pixels(plain).tolist()
    (files / "ink.safetensors").unlink()
    with pytest.raises(InferenceServerException, match="this server has no LoRA files"):
        calls.pictures(asked(("ink", 0.8)))


def test_a_crowd_of_sets_shares_the_server_and_each_gets_its_own_picture(loras):
    calls, files, _ = loras
    lora_files.write(files, "ink", INK)
    lora_files.write(files, "chalk", CHALK)
    sets = [(), (("ink", 0.8),), (("chalk", -1.0),), (("ink", 0.8), ("chalk", -1.0))]
    words = "a red circle <lora:ink:0.8>"
    requests = [asked(*one) for one in sets]
    requests.append(asked(prompt_syntax="webui", prompt=words))
    alone = [calls.pictures(one)[0] for one in requests]
    assert len({pixels(one).tobytes() for one in alone}) == len(requests)
    assert read_settings(alone[-1]).prompt == words
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: calls.pictures(one)[0], 2 * requests))
    for one, other in zip(found, 2 * alone):
        assert np.abs(pixels(one).astype(int) - pixels(other)).max() <= 1
    assert found[0] == alone[0]


def test_a_bad_file_is_an_error_for_its_request_alone(loras):
    calls, files, _ = loras
    lora_files.write(files, "ink", INK)
    wide = {"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (128, 768)}
    lora_files.write(files, "wide", lora_files.changes(0, unet=wide, text={}))
    lora_files.write(files, "nan", {key: (np.nan * a, b) for key, (a, b) in INK.items()})
    (files / "broken.safetensors").write_bytes(b"<!DOCTYPE html>" * 10)
    good = asked(("ink", 1.0))
    (expected,) = calls.pictures(good)
    bad = {"wide": "for Stable Diffusion 1.x", "nan": "NaN or infinity", "broken": "its header"}
    with ThreadPoolExecutor(6) as pool:
        goods = [pool.submit(calls.pictures, good) for _ in range(3)]
        for name, text in bad.items():
            with pytest.raises(InferenceServerException, match=text) as caught:
                calls.pictures(asked((name, 1.0)))
            assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
            assert str(files) not in str(caught.value)
        for one in goods:
            difference = pixels(one.result()[0]).astype(int) - pixels(expected)
            assert np.abs(difference).max() <= 1


def test_the_settings_tensor_of_a_stage_called_alone(loras):
    calls, files, _ = loras
    lora_files.write(files, "ink", INK)
    inputs = calls.loop_inputs(asked(("ink", 1.0)))
    told = json.loads(inputs["settings"][0, 0])
    (whole,) = calls.infer("unet_loop", inputs)["latents"]
    for name, value in (
        *(("loras", one) for one in ("ink", [{"name": "../ink"}], [{"name": "other"}])),
        *(("text_inputs", one) for one in ([], {}, {"input_ids": [2**40]}, {"input_ids": "x"})),
    ):
        changed = json.dumps({**told, name: value}).encode()
        wrong = {**inputs, "settings": np.array([[changed]], dtype=object)}
        with pytest.raises(InferenceServerException, match=rf"{name}: got"):
            calls.infer("unet_loop", wrong)
    del told["text_inputs"]  # the embeddings are the caller's then
    own = {**inputs, "settings": np.array([[json.dumps(told).encode()]], dtype=object)}
    (latents,) = calls.infer("unet_loop", own)["latents"]
    assert np.abs(latents - whole).max() > 0.01
