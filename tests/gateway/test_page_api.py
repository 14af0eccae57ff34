"""What the page asks: a picture on its way, and the model's own settings."""

import asyncio
import base64
import json
import secrets
import threading
import time

import grpc
import httpx
import pytest

from tests.gateway.fake_triton import PREVIEW, TOTAL
from tests.gateway.pictures import flat, grain, text
from tests.gateway.running import Gateway, wait_for
from tests.gateway.test_metrics import samples
from triptych import schedulers
from triptych.gateway import tabs
from triptych.picture.metadata import read_settings
from triptych.streaming import Step


@pytest.fixture
def client(gateway):
    """A tab of its own."""
    tab = {"tab": secrets.token_hex()[:64]}
    with httpx.Client(base_url=gateway.url, params=tab, timeout=30) as client:
        yield client


def events(text):
    """(name, data) of each event."""
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def begin(client, asked, id="1"):
    return client.post("/api/picture", params={"id": id}, json={"prompt": "x", **asked})


def give_up(client, id="1"):
    assert client.delete("/api/picture", params={"id": id}).status_code == 204


def news(client):
    """All events, once they have ended."""
    answer = client.get("/api/pictures")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["connection"] == "close"
    return events(answer.text)


def drawn(client, asked):
    """What is told of a picture that is there."""
    answer = begin(client, asked)
    assert answer.json() == {"known": False}
    name, data = news(client)[-1]
    assert name == "picture"
    return data


def live(answer):
    """The events of an answer, as they come."""
    lines = answer.iter_lines()
    for line in lines:
        if line.startswith("event: "):
            yield line.removeprefix("event: "), json.loads(next(lines).removeprefix("data: "))


def test_steps_and_previews_then_the_picture(client, triton):
    triton.held_from = 2
    triton.hold.clear()
    size = {"seed": str(2**64 - 1), "width": 128}
    assert begin(client, size).json() == {"known": False}
    with client.stream("GET", "/api/pictures") as answer:
        told = live(answer)
        assert next(told) == ("step", {"id": "1", "step": 1, "total": TOTAL, "preview": None})
        triton.hold.set()
        *steps, (name, picture) = told
    assert steps[-1][1]["step"] == TOTAL
    (preview,) = (one for _, one in steps if one["preview"])
    assert preview["step"] == 2 and base64.b64decode(preview["preview"]) == PREVIEW
    assert (name, picture["id"], picture["settings"]["seed"]) == ("picture", "1", str(2**64 - 1))
    assert read_settings(base64.b64decode(picture["file"])).width == 128
    assert triton.requests[0]["seed"] == 2**64 - 1
    assert news(client) == []


def test_the_models_own_settings(client):
    usual = client.get("/api/usual").json()
    assert (usual["width"], usual["height"], usual["num_inference_steps"]) == (64, 64, 20)
    assert usual["scheduler"] == "pndm"
    assert list(usual["schedulers"]) == list(schedulers.NAMES)
    assert usual["schedulers"]["dpmpp_2m_karras"] == "DPM++ 2M Karras"


def test_limits_hold_what_the_model_does_by_itself(client, triton):
    low = {"max_pixels": 1024, "max_num_inference_steps": 5, "max_guidance_scale": 2}
    least = {"min_side": 128}
    triton.parameters["tokenizer"] = {name: str(value) for name, value in (low | least).items()}
    limits = client.get("/api/usual").json()["limits"]
    assert [limits[name] for name in (*low, *least)] == [64 * 64, 20, 5, 64]


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
    assert drawn(client, asked)["settings"]["strength"] == 0.5
    assert triton.requests[0]["image"] == triton.requests[0]["mask_image"] == image
    triton.takes_pictures = False
    assert client.get("/api/usual").json()["takes_pictures"] is False
    # What takes longer than a second is refused in the events that have begun by then.
    small = {**asked, "image": text(flat()), "mask_image": None}
    assert begin(client, small).json()["field"] == "image"


def test_a_picture_in_two_passes(client, triton):
    second = {"width": 128, "height": 192, "strength": 0.5}
    picture = drawn(client, {"second_pass": second})
    told = {**second, "num_inference_steps": 20, "interpolation": "bilinear"}
    assert picture["settings"]["second_pass"] == told
    assert triton.requests[0]["second_pass"] == second
    file = base64.b64decode(picture["file"])
    assert client.post("/api/settings", content=file).json()["second_pass"] == told


def test_a_prompt_for_a_second_text_encoder(client, triton):
    assert client.get("/api/usual").json()["takes_prompt_2"] is False
    triton.is_sdxl = True
    assert client.get("/api/usual").json()["takes_prompt_2"] is True
    own = {"prompt_2": "1", "negative_prompt_2": "2", "target_size": [64, 96]}
    told = drawn(client, own)["settings"]
    assert {name: told.get(name) for name in own} == own


def test_the_loras_of_a_model_and_of_a_picture(client, triton):
    assert client.get("/api/loras").json() == []
    triton.loras = ["ink"]
    assert client.get("/api/loras?model=sd_ensemble").json() == ["ink"]
    asked = [{"name": "ink", "scale": -0.5}, {"name": "chalk"}]
    assert drawn(client, {"loras": asked})["settings"]["loras"] == [
        asked[0],
        {"name": "chalk", "scale": 1.0},
    ]


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
    answer = begin(client, asked)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert answer.json()["message"].startswith(f"{field}: got ")


@pytest.mark.parametrize("field", ["tab", "id"])
@pytest.mark.parametrize("value", [None, "", "x" * 65])
def test_a_picture_needs_a_name(client, triton, field, value):
    named = {"tab": "t", "id": "1", field: value}
    named = {name: text for name, text in named.items() if text is not None}
    answer = httpx.post(f"{client.base_url}/api/picture", params=named, json={"prompt": "x"})
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert triton.requests == []


def test_what_fails_on_the_way_is_an_event(client, triton):
    def failed():
        counts = samples(client.get("/metrics").text)
        return counts['triptych_gateway_requests_total{code="500",route="/api/picture"}']

    before = failed()
    triton.abort_after = (grpc.StatusCode.INTERNAL, "it broke")
    triton.held_from = 2
    triton.hold.clear()
    assert begin(client, {}).status_code == 200
    triton.hold.set()
    name, data = news(client)[-1]
    assert (name, data["id"], data["status"]) == ("error", "1", 500)
    assert "it broke" in data["message"]
    assert failed() - before == 1


def test_pictures_that_wait_tell_their_places_in_one_stream(client, triton):
    triton.hold.clear()
    for id in "123":
        assert begin(client, {}, id).json() == {"known": False}
    with client.stream("GET", "/api/pictures") as answer:
        told = live(answer)
        places = [next(told) for _ in range(3)]
        assert places == [("waiting", {"id": id, "place": int(id)}) for id in "123"]
        give_up(client)
        assert sorted(one["place"] for _, one in (next(told), next(told))) == [1, 2]
        triton.hold.set()
        rest = list(told)
    assert sorted(one["id"] for name, one in rest if name == "picture") == ["2", "3"]


def test_a_picture_goes_on_where_its_tab_comes_back(client, triton):
    triton.held_from = 4
    triton.hold.clear()
    begin(client, {})
    with client.stream("GET", "/api/pictures") as answer:
        told = live(answer)  # which closes the answer when it is forgotten
        while next(told)[1]["step"] < 3:
            pass
    assert begin(client, {}).json() == {"known": True}
    with client.stream("GET", "/api/pictures") as answer:
        told = live(answer)
        for again in (True, False):
            state = [next(told)[1] for _ in range(2)]
            assert [(one["step"], bool(one["preview"])) for one in state] == [(2, True), (3, False)]
            if again:  # who asks again may not have listened before
                assert begin(client, {}).json() == {"known": True}
        triton.hold.set()
        assert [name for name, _ in told][-1] == "picture"
    assert len(triton.requests) == 1


def test_another_reader_of_a_tab_ends_the_one_before(client, triton):
    triton.hold.clear()
    begin(client, {})
    with client.stream("GET", "/api/pictures") as answer:
        told = live(answer)
        assert next(told)[0] == "waiting"
        with client.stream("GET", "/api/pictures") as other:
            assert next(live(other))[0] == "waiting"
            assert list(told) == []
    assert triton.left == 0


def test_a_tab_has_its_own_pictures_alone(gateway, client, triton):
    triton.hold.clear()
    begin(client, {})
    with httpx.Client(base_url=gateway.url, params={"tab": "another"}) as another:
        assert news(another) == []
        give_up(another)
        assert begin(client, {}).json() == {"known": True}
        assert begin(another, {}).json() == {"known": False}
        triton.hold.set()
        for one in (client, another):
            assert [name for name, _ in news(one)][-1] == "picture"


@pytest.mark.parametrize("held_from", [1, 3])
@pytest.mark.parametrize("is_read", [True, False])
def test_what_nobody_reads_is_given_up(client, triton, monkeypatch, held_from, is_read):
    monkeypatch.setattr(tabs, "GRACE", 1.5)  # beginning takes up to 1 s
    triton.held_from = held_from
    triton.hold.clear()
    begin(client, {})
    if is_read:
        with client.stream("GET", "/api/pictures") as answer:
            told = live(answer)
            next(told)
            time.sleep(2)
            assert triton.left == 0
    wait_for(lambda: triton.left == 1)
    assert news(client) == []


def test_a_reader_that_takes_nothing_more_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(tabs, "STALLED", 0.2)

    async def draw(tell):
        tell(Step(1, 2, None))
        await asyncio.Event().wait()

    async def work():
        tab = tabs.Tab(print)
        tab.begin("1", draw, 7)
        read = tab.read()
        assert await read.__anext__() == ("1", Step(1, 2, None))
        assert tab.bytes == 7
        await asyncio.sleep(0.5)
        assert tab.bytes == 0
        await read.aclose()

    asyncio.run(work())


def test_a_stream_is_never_silent_for_long(client, triton, monkeypatch):
    monkeypatch.setattr(tabs, "BEAT", 0.1)
    triton.held_from = 2
    triton.hold.clear()
    begin(client, {})
    with client.stream("GET", "/api/pictures") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": nothing new"
        triton.hold.set()
        assert any(line == "event: picture" for line in lines)


def test_a_slow_reader_misses_steps_and_all_previews_but_the_newest(client, triton):
    triton.held_from = TOTAL
    triton.hold.clear()
    begin(client, {})
    time.sleep(0.2)
    with client.stream("GET", "/api/pictures") as answer:
        told = live(answer)
        assert [next(told)[1]["step"] for _ in range(2)] == [2, 3]
        triton.hold.set()
        assert [name for name, _ in told][-1] == "picture"


def test_what_tabs_hold_is_bounded(start, triton, monkeypatch):
    """Pictures to start from, and those that nobody reads."""
    monkeypatch.setattr(tabs, "MAX_BYTES", 100_000)
    image = f"data:image/png;base64,{base64.b64encode(grain(0.05)).decode()}"
    assert 50_000 < len(image) < 100_000
    asked = {"image": image, "width": 64, "height": 64}
    with httpx.Client(base_url=start().url, params={"tab": "t"}, timeout=30) as client:
        triton.hold.clear()
        assert begin(client, asked).json() == {"known": False}
        refused = begin(client, asked, "2")
        assert refused.status_code == 429 and refused.headers["retry-after"] == "2"
        assert begin(client, asked).json() == {"known": True}
        triton.hold.set()
        wait_for(lambda: begin(client, asked, "2").json() == {"known": False})
        monkeypatch.setattr(tabs, "MAX_BYTES", 0)
        assert begin(client, {}, "3").status_code == 429
        assert [name for name, _ in news(client)].count("picture") == 2
        assert begin(client, {}, "3").json() == {"known": False}


def test_the_gateways_end_gives_all_up(triton):
    triton.hold.clear()
    with Gateway(triton.url) as own, httpx.Client(base_url=own.url, params={"tab": "t"}) as client:
        begin(client, {})
    wait_for(lambda: triton.left == 1)


def test_the_gateways_end_waits_for_pictures_that_are_read(triton):
    triton.held_from = 3
    triton.hold.clear()
    read = []

    def read_all(url):
        with httpx.stream("GET", f"{url}/api/pictures?tab=t", timeout=30) as answer:
            for one in live(answer):
                read.append(one)

    with Gateway(triton.url) as own, httpx.Client(base_url=own.url, params={"tab": "t"}) as client:
        begin(client, {})
        reading = threading.Thread(target=read_all, args=(own.url,))
        reading.start()
        wait_for(lambda: read)
        threading.Timer(0.5, triton.hold.set).start()
    reading.join()
    assert read[-1][0] == "picture"


def test_the_page_and_its_files(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("page.js", "base.css", "icon.svg"):
        assert f"web/{name}" in page.text
        assert client.get(f"/web/{name}").status_code == 200
    assert client.get("/web/../page.py").status_code == 404
    assert client.get("/web/page.html").status_code == 404
    icon = client.get("/favicon.ico")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
