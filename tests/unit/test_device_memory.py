"""A UNet whose output stays in a GPU's memory, on Tritons that can be asked for it and not."""

import importlib
import json
import sys

import numpy as np
import pb_utils_fake as fake
import pytest

SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}
TENSORRT = (
    'optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "%s" } ] } }'
)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """`stage(release)`: the model unet_loop beside a unet whose engine and GPU can be chosen."""
    folder = tmp_path / "unet_loop"
    (folder / "1").mkdir(parents=True)
    (tmp_path / "unet").mkdir()
    (folder / "1" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (folder / "1" / "pipeline.json").write_text(json.dumps({"height": 64, "width": 64}))
    made = []

    def make(release, engine="tensorrt", driver=True, on_gpu=True):
        (tmp_path / "unet" / "config.pbtxt").write_text(TENSORRT % engine)
        fake.install(monkeypatch, fake.module(release, fake.no_noise, on_gpu))
        triton = importlib.import_module("triptych.stages.triton")
        device = tmp_path / ("unet" if driver else "nothing")
        monkeypatch.setattr(triton.device_memory, "DRIVER", device)
        unet_loop = importlib.import_module("triptych.stages.unet_loop")
        made.append(unet_loop.LoopStage(triton.Model(fake.initialize_args(folder))))
        return made[-1]

    yield make
    for one in made:
        one.close()


def request(kind):
    settings = {
        "prompt": "a prompt",
        "negative_prompt": "",
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        "seed": 1,
        "height": 64,
        "width": 64,
        "scheduler": "ddim",
        "output_format": "png",
    }
    embeds = np.random.RandomState(1).standard_normal((1, 7, 16)).astype(np.float32)
    return kind(
        prompt_embeds=embeds,
        negative_prompt_embeds=0 * embeds,
        settings=np.array([[json.dumps(settings).encode()]], dtype=object),
    )


def latents(stage):
    (response,) = stage.execute([request(fake.OldRequest)])
    assert not response.has_error(), response.error().message()
    return response.tensors["latents"]


def test_paddle_brings_it_to_the_host_where_triton_does_not(stage, monkeypatch):
    paddle = fake.paddle()
    monkeypatch.setitem(sys.modules, "paddle", paddle)
    fetched = latents(stage("21.10"))
    assert len(paddle.fetched) == 2, "a call each step"
    np.testing.assert_array_equal(fetched, latents(stage("21.10", on_gpu=False)))
    assert len(paddle.fetched) == 2


def test_a_newer_triton_is_asked_for_it_on_the_host(stage, monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle", None)
    sent = request(fake.Request)
    stage("24.10").execute([sent])
    assert not fake.answer(sent).has_error()


@pytest.mark.parametrize(
    ("paddle", "says"),
    [(None, r"Paddle, .*, cannot be imported \(.*\): install"), (False, "is built without CUDA: ")],
)
def test_where_nothing_can_the_load_fails_and_says_what_to_do(stage, monkeypatch, paddle, says):
    module = None if paddle is None else fake.paddle(cuda=paddle)
    monkeypatch.setitem(sys.modules, "paddle", module)
    with pytest.raises(ValueError, match=f"^unet leaves its outputs on the GPU .*{says}"):
        stage("21.10")


@pytest.mark.parametrize("where", [{"driver": False}, {"engine": "onnxruntime"}])
def test_what_cannot_be_foreseen_is_said_at_the_first_call(stage, monkeypatch, where):
    monkeypatch.setitem(sys.modules, "paddle", None)
    assert latents(stage("21.10", on_gpu=False, **where)).shape == (1, 4, 8, 8)
    (response,) = stage("21.10", **where).execute([request(fake.OldRequest)])
    said = response.error().message()
    assert said.startswith("unet_loop: out_sample is in a GPU's memory, and Paddle, which could")
    assert "install paddlepaddle-gpu, or set onnxruntime" in said
