"""The same models on a real Triton 23.10, whose requests can only be answered at once, and in the
Python of FastDeploy's image.

Its `tritonserver` is put on PATH, so that the launcher takes it; its Python models run in
.venv-old, which `make test-old` makes.
"""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.server.calls import SMALL, Calls, metrics, pixels, request, texts
from triptych.client import Client
from triptych.pipeline import Pipeline
from triptych.server.running import RunningServer

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = CHECKOUT / ".venv-old" / "lib" / "python3.8" / "site-packages"
TRITON = PACKAGES / "pytriton" / "tritonserver"

SCRIPT = """#!/bin/sh
export LD_LIBRARY_PATH={packages}/nvidia_pytriton.libs:{libpython}
export PATH={environment}/bin:$PATH
exec {triton}/bin/tritonserver --cache-directory={triton}/caches "$@"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder laid out as NVIDIA's images have Triton: bin and backends."""
    folder = tmp_path_factory.mktemp("opt")
    shutil.copytree(TRITON / "backends", folder / "backends")
    stub = TRITON / "python_backend_stubs" / "3.8" / "triton_python_backend_stub"
    shutil.copy2(stub, folder / "backends" / "python")
    (folder / "bin").mkdir()
    script = folder / "bin" / "tritonserver"
    where = "from triptych.server import python; print(python.shared_library())"
    own_python = [CHECKOUT / ".venv-old" / "bin" / "python", "-c", where]
    library = subprocess.run(own_python, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    names = {
        "packages": PACKAGES,
        "libpython": Path(library.stdout.strip()).parent,
        "environment": CHECKOUT / ".venv-old",
        "triton": TRITON,
    }
    script.write_text(SCRIPT.format(**names))
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def old(installed, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(installed / "bin"), prepend=":")
        log = tmp_path_factory.mktemp("old") / "server.log"
        with RunningServer(CHECKOUT / "model_repository", log) as server:
            yield server


@pytest.fixture
def calls(old):
    made = Calls(old.grpc)
    yield made
    made.close()


def test_it_is_triton_23_10(calls):
    assert calls.client.get_server_metadata().version == "2.39.0"


def test_pictures_are_those_of_the_current_triton(calls, tmp_path):
    raw = [request(**SMALL), request("a green star", **{**SMALL, "guidance_scale": 1.0})]
    with RunningServer(CHECKOUT / "model_repository", tmp_path / "current.log") as current:
        others = Calls(current.grpc)
        assert calls.pictures(*raw) == others.pictures(*raw)
        others.close()


def picture(size, colour):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


MASKED = {"image": picture((200, 130), "red"), "mask_image": picture((64, 64), "white")}


@pytest.mark.parametrize(
    "more",
    [
        {**MASKED, "mask_blur": 4, "padding_mask_crop": 8},
        {"second_pass": {"height": 144, "width": 128}, "guidance_stop": 0.5},
        {"prompt_syntax": "webui", "prompt": "a (red:1.2) circle, " * 20},
    ],
)
def test_what_runs_more_of_the_code_draws_the_same(calls, more):
    asked = request(**{**SMALL, **more})
    (found,) = calls.pictures(asked)
    (expected,) = Pipeline(CHECKOUT / "model_repository").draw(asked.decode())
    assert np.abs(pixels(found).astype(int) - pixels(expected)).max() <= 1


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"loras": [{"name": "outlines"}]}, "a backend that cannot add LoRAs"),
        ({"cache_interval": 2}, "this Triton hands on no names"),
    ],
)
def test_what_takes_parameters_from_stage_to_stage_is_refused(calls, more, why):
    with pytest.raises(InferenceServerException, match=why) as caught:
        calls.pictures(request(**{**SMALL, **more}))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_stream_tells_its_steps_and_ends_with_the_picture(old):
    with Client(old.grpc) as client:
        *steps, last = client.stream("a red circle", **SMALL)
    assert [step.step for step in steps][-1] <= SMALL["num_inference_steps"]
    assert pixels(last.file).shape == (128, 128, 3)


def test_requests_at_once_are_all_answered(calls):
    started = [
        calls.start("sd_ensemble", {"INPUT_0": texts(request(**{**SMALL, "seed": seed}))})
        for seed in range(6)
    ]
    for one in started:
        assert one.wait().error is None


def test_images_of_a_request_share_the_unets_calls(calls, old):
    inputs = calls.loop_inputs(*(request(**{**SMALL, "seed": seed}) for seed in range(4)))
    key = ("nv_inference_exec_count", "unet")
    before = metrics(old.metrics).get(key, 0)
    latents = calls.infer("unet_loop", inputs)["latents"]
    assert latents.shape == (4, 4, 16, 16) and np.isfinite(latents).all()
    assert metrics(old.metrics)[key] - before == SMALL["num_inference_steps"]


def test_a_bad_request_is_refused_as_everywhere(calls):
    with pytest.raises(InferenceServerException, match="tokenizer: steps: got 3") as caught:
        calls.pictures(request(steps=3))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
