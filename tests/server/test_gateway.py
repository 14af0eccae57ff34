"""The gateway in front of the real server: the same pictures, and work that ends when people go."""

import base64
import io
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from PIL import Image

from tests.gateway.running import Gateway, wait_for
from tests.server.calls import SMALL, metrics
from triptych.client import Client
from triptych.gateway import tabs
from triptych.model_files import ModelFiles
from triptych.picture_stream import PictureStream

IN_FLIGHT = ("triptych_images_in_flight", "unet_loop")
STEPS = ("triptych_steps_total", "unet_loop")
COMMAND = [sys.executable, "-m", "triptych.cli", "gateway"]


@pytest.fixture
def web(gateway):
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def drawn(server):
    """The file that the server itself gives for SMALL."""
    with Client(server.grpc) as client:
        return client.generate("a red circle", 60, **SMALL).file


def is_idle(server):
    return metrics(server.metrics)[IN_FLIGHT] == 0


def stands_still(server):
    """Whether the loop makes no step any more."""
    wait_for(lambda: is_idle(server), 5)
    before = metrics(server.metrics)[STEPS]
    time.sleep(0.5)
    return metrics(server.metrics)[STEPS] == before


def test_openais_client_gets_the_servers_picture(gateway, drawn):
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    own = {key: SMALL[key] for key in ("num_inference_steps", "scheduler", "seed")}
    answer = client.images.generate(prompt="a red circle", size="128x128", extra_body=own)
    assert base64.b64decode(answer.data[0].b64_json) == drawn
    assert [model.id for model in client.models.list()] == ["sd_ensemble"]
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="x", size="100x128")
    assert caught.value.body["param"] == "size"
    assert "width: 96 or 104, the nearest sizes" in caught.value.body["message"]


def test_a_job_gets_the_servers_picture_too(web, drawn):
    own = {key: SMALL[key] for key in ("num_inference_steps", "scheduler", "seed")}
    asked = {"prompt": "a red circle", "size": "128x128", "background": True, **own}
    job = f"/v1/images/generations/{web.post('/v1/images/generations', json=asked).json()['id']}"
    wait_for(lambda: web.get(job).json()["state"] == "done")
    told = web.get(job).json()
    assert told["step"] == told["total"] > 0
    assert base64.b64decode(told["result"]["data"][0]["b64_json"]) == drawn


def pixels(file):
    return Image.open(io.BytesIO(file)).tobytes()


def test_the_webuis_clients_get_the_servers_picture(web, drawn):
    asked = {"prompt": "a red circle", "width": 128, "height": 128, "steps": 3, "seed": 7}
    answer = web.post("/sdapi/v1/txt2img", json={**asked, "sampler_name": "DDIM"}).json()
    # The files differ in the text that says by which syntax the prompt was read.
    assert pixels(base64.b64decode(answer["images"][0])) == pixels(drawn)
    assert json.loads(answer["info"])["seed"] == 7


def test_progress_and_interrupt(web, server, repository):
    answers = []
    asked = {"prompt": "a red circle", "steps": 200, "batch_size": 2}
    drawing = threading.Thread(
        target=lambda: answers.append(web.post("/sdapi/v1/txt2img", json=asked).json())
    )
    drawing.start()
    seen = []

    def shows():
        seen.append(web.get("/sdapi/v1/progress").json())
        return seen[-1]["state"]["sampling_step"] >= 12

    wait_for(shows, 60)
    now = seen[-1]
    assert now["state"]["job_count"] == 2
    assert 0 < now["progress"] < 1 and now["eta_relative"] > 0
    if ModelFiles.load(repository / "unet_loop" / "1").latent_rgb:
        assert base64.b64decode(now["current_image"]).startswith(b"\x89PNG")
    assert web.post("/sdapi/v1/interrupt").status_code == 200
    drawing.join(10)
    assert answers[0]["images"] == []
    assert stands_still(server)
    assert web.get("/sdapi/v1/progress").json()["progress"] == 0


def test_the_page_draws_a_picture_larger_in_a_second_pass(web, server):
    second = {"width": 192, "height": 128, "strength": 0.3, "num_inference_steps": 4}
    asked = {**SMALL, "second_pass": second}
    web.post("/api/picture?tab=t&id=1", json={"prompt": "a red circle", **asked})
    answer = web.get("/api/pictures?tab=t")
    told = json.loads(answer.text.split("event: picture\ndata: ")[1])
    file = base64.b64decode(told["file"])
    assert Image.open(io.BytesIO(file)).size == (192, 128)
    with Client(server.grpc) as client:
        assert file == client.generate("a red circle", 60, **asked).file
    again = web.post("/api/settings", content=file).json()["second_pass"]
    assert again == {**second, "interpolation": "bilinear"} == told["settings"]["second_pass"]


def test_leaving_the_page_ends_the_work(web, server, monkeypatch):
    monkeypatch.setattr(tabs, "GRACE", 1)
    asked = {"prompt": "a red circle", "num_inference_steps": 200}
    web.post("/api/picture?tab=t&id=1", json=asked)
    with web.stream("GET", "/api/pictures?tab=t") as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        first = json.loads(next(lines)[6:])
        assert 1 <= first["step"] < first["total"] == 200
    assert stands_still(server)


def test_a_picture_that_is_cancelled_on_the_page_ends_at_the_next_tick(web, server):
    asked = {"prompt": "a red circle", "num_inference_steps": 200}
    web.post("/api/picture?tab=t&id=1", json=asked)
    web.delete("/api/picture?tab=t&id=1")
    assert stands_still(server)


def test_a_client_that_hangs_up_ends_its_pictures(web, server):
    with pytest.raises(httpx.ReadTimeout):
        web.post(
            "/v1/images/generations",
            json={"prompt": "x", "n": 2, "num_inference_steps": 200},
            timeout=1,
        )
    assert stands_still(server)


def test_more_pictures_than_the_server_streams_are_refused_with_when_to_come_again(
    server, monkeypatch
):
    """Such as are not asked for again: others may find room by then."""
    monkeypatch.setattr(PictureStream, "TRIES", 1)
    asked = {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": 200}

    def news(number):
        """The first of a picture's that is neither its place in line nor a beat."""
        begun = web.post(f"/api/picture?tab={number}&id=1", json=asked)
        if begun.is_error:
            assert (begun.status_code, begun.headers["retry-after"]) == (429, "2")
            return begun.text
        with web.stream("GET", f"/api/pictures?tab={number}") as answer:
            lines = answer.iter_lines()
            while (line := next(lines)) not in ("event: step", "event: error"):
                pass
            return line + next(lines)

    with Gateway(server.grpc, max_pictures=64) as gateway, ThreadPoolExecutor(40) as pool:
        web = httpx.Client(base_url=gateway.url, timeout=120)
        told = list(pool.map(news, range(40)))
    drawn = [one for one in told if one.startswith("event: step")]
    refused = [one for one in told if "images are streamed already" in one]
    assert (len(drawn), len(refused)) == (31, 9)
    assert stands_still(server)


def test_the_models_own_settings(web, repository):
    usual = web.get("/api/usual").json()
    assert usual["width"] == ModelFiles.load(repository / "unet_loop" / "1").width
    assert 1 <= usual["num_inference_steps"] <= 200
    assert usual["scheduler"] in usual["schedulers"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_command(server, tmp_path, signum):
    key = tmp_path / "key"
    key.write_text("sesame\n")
    options = ["--url", server.grpc, "--port", "0", "--api-key-file", str(key)]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as command:
        url = command.stdout.readline().split()[-1]
        assert httpx.get(f"{url}healthz").json() == {"status": "ok"}
        assert httpx.get(f"{url}v1/models").status_code == 401
        given = {"Authorization": "Bearer sesame"}
        assert httpx.get(f"{url}v1/models", headers=given).status_code == 200
        command.send_signal(signum)
        assert command.wait(20) == 0
