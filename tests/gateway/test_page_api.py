"""What the page asks: a picture on its way, and the model's own settings."""

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest

from tests.gateway.fake_triton import PREVIEW, TOTAL
from tests.gateway.pictures import flat, grain, text
from tests.gateway.running import wait_for
from triptych import schedulers
from triptych.picture.metadata import read_settings


@pytest.fixture
def client(gateway):
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


def events(answer):
    """(name, data) of each event."""
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_steps_and_previews_then_the_picture(client, triton):
    asked = {"prompt": "a red circle", "seed": str(2**64 - 1), "width": 128}
    answer = client.post("/api/picture", json=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["connection"] == "close"
    *steps, (name, drawn) = events(answer)
    shown = [(name, one["step"], one["total"], bool(one["preview"])) for name, one in steps]
    assert shown == [("step", step, TOTAL, step == 2) for step in range(1, TOTAL + 1)]
    assert base64.b64decode(steps[1][1]["preview"]) == PREVIEW
    assert name == "picture"
    assert drawn["settings"]["seed"] == str(2**64 - 1)
    assert read_settings(base64.b64decode(drawn["file"])).width == 128
    assert triton.requests[0]["seed"] == 2**64 - 1


def test_the_models_own_settings(client):
    usual = client.get("/api/usual").json()
    assert (usual["width"], usual["height"], usual["num_inference_steps"]) == (64, 64, 20)
    assert usual["scheduler"] == "pndm"
    assert list(usual["schedulers"]) == list(schedulers.NAMES)
    assert usual["schedulers"]["dpmpp_2m_karras"] == "DPM++ 2M Karras"


def test_what_a_model_does_is_asked_at_the_same_time(gateway, client, monkeypatch):
    asking, most = 0, 0
    ask = gateway.app.state.studio.ask

    async def counted(*question):
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await asyncio.sleep(0.05)
        try:
            return await ask(*question)
        finally:
            asking -= 1

    monkeypatch.setattr(gateway.app.state.studio, "ask", counted)
    usual = client.get("/api/usual").json()
    assert usual["scheduler"] == "pndm" and usual["limits"]["max_pixels"] == 768 * 768
    assert most == 6


def test_a_picture_to_start_from(client, triton):
    assert client.get("/api/usual").json()["takes_pictures"] is True
    image = f"data:image/png;base64,{base64.b64encode(grain(10)).decode()}"
    size = {"width": 64, "height": 64}
    asked = {"prompt": "x", "image": image, "mask_image": image, "strength": 0.5, **size}
    *_, (_, drawn) = events(client.post("/api/picture", json=asked))
    assert drawn["settings"]["strength"] == 0.5
    assert triton.requests[0]["image"] == triton.requests[0]["mask_image"] == image
    triton.takes_pictures = False
    assert client.get("/api/usual").json()["takes_pictures"] is False
    # What takes longer than a second is refused in the events that have begun by then.
    small = {**asked, "image": text(flat()), "mask_image": None}
    assert client.post("/api/picture", json=small).json()["field"] == "image"


def test_a_picture_in_two_passes(client, triton):
    second = {"width": 128, "height": 192, "strength": 0.5}
    drawn = events(client.post("/api/picture", json={"prompt": "x", "second_pass": second}))[-1][1]
    told = {**second, "num_inference_steps": 20, "interpolation": "bilinear"}
    assert drawn["settings"]["second_pass"] == told
    assert triton.requests[0]["second_pass"] == second
    file = base64.b64decode(drawn["file"])
    assert client.post("/api/settings", content=file).json()["second_pass"] == told


def test_a_prompt_for_a_second_text_encoder(client, triton):
    assert client.get("/api/usual").json()["takes_prompt_2"] is False
    triton.is_sdxl = True
    assert client.get("/api/usual").json()["takes_prompt_2"] is True
    own = {"prompt_2": "1", "negative_prompt_2": "2", "target_size": [64, 96]}
    told = events(client.post("/api/picture", json={"prompt": "x", **own}))[-1][1]["settings"]
    assert {name: told.get(name) for name in own} == own


def test_the_loras_of_a_model_and_of_a_picture(client, triton):
    assert client.get("/api/loras").json() == []
    triton.loras = ["ink"]
    assert client.get("/api/loras?model=sd_ensemble").json() == ["ink"]
    asked = [{"name": "ink", "scale": -0.5}, {"name": "chalk"}]
    answer = client.post("/api/picture", json={"prompt": "x", "loras": asked})
    told = events(answer)[-1][1]["settings"]["loras"]
    assert told == [asked[0], {"name": "chalk", "scale": 1.0}]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"width": 100}, "width"),
        ({"strength": 0.5}, "strength"),
        ({"image": "%"}, "image"),
        ({"loras": [{"name": "ink", "scale": 5}]}, "loras.0.scale"),
        ({"loras": [{"name": "ink"}] * 2}, "loras"),
        ({"loras": [{"name": "../ink"}]}, "loras"),
        ({"seed": "x"}, "seed"),
        ({"second_pass": {"width": 1024, "height": 1024}}, "second_pass.height"),
        ({"second_pass": {"width": 128}}, "second_pass"),
        ({"second_pass": 2}, "second_pass"),
        ({"prompt": "\0"}, "prompt"),
        ({"n": 1}, "n"),
    ],
)
def test_what_cannot_be_is_refused_before_any_event(client, asked, field):
    answer = client.post("/api/picture", json={"prompt": "x", **asked})
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert answer.json()["message"].startswith(f"{field}: got ")


def test_what_fails_on_the_way_is_an_event(client, triton):
    triton.abort_after = (grpc.StatusCode.INTERNAL, "it broke")
    name, data = events(client.post("/api/picture", json={"prompt": "x"}))[-1]
    assert name == "error"
    assert "it broke" in data["message"]
    assert data["status"] == 500


def waiting(answer):
    """The data of each event, as they come."""
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_a_picture_that_waits_tells_its_place(client, triton):
    triton.hold.clear()
    told = []

    def draw_second():
        with client.stream("POST", "/api/picture", json={"prompt": "second"}) as answer:
            for one in waiting(answer):
                told.append(one)

    with ThreadPoolExecutor() as threads:
        with client.stream("POST", "/api/picture", json={"prompt": "first"}) as answer:
            first = waiting(answer)  # closes the answer when it is forgotten
            assert next(first) == {"place": 1}
            second = threads.submit(draw_second)
            wait_for(lambda: told == [{"place": 2}])
        wait_for(lambda: told == [{"place": 2}, {"place": 1}])
        triton.hold.set()
        second.result()
    assert "settings" in told[-1]


@pytest.mark.parametrize("held_from", [1, 3])
def test_leaving_gives_the_picture_up(client, triton, held_from):
    triton.held_from = held_from
    triton.hold.clear()
    with pytest.raises(httpx.ReadTimeout):
        client.post("/api/picture", json={"prompt": "x"}, timeout=0.5)
    wait_for(lambda: triton.left == 1)


def test_the_page_and_its_files(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("page.js", "base.css", "icon.svg"):
        assert f"web/{name}" in page.text
        assert client.get(f"/web/{name}").status_code == 200
    assert client.get("/web/../page.py").status_code == 404
    assert client.get("/web/page.html").status_code == 404
