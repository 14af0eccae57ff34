"""Several keys in a file: who may draw what, and how much."""

import hashlib
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest

from tests.gateway.running import wait_for
from tests.gateway.test_metrics import samples
from triptych.gateway import keys as keys_module
from triptych.gateway.access import FILES
from triptych.gateway.keys import Keys

PATHS = ("/v1/images/generations", "/sdapi/v1/txt2img", "/api/picture")
SMALL = {"prompt": "a fox", "width": 64, "height": 64}
BODIES = {
    "/v1/images/generations": {"prompt": "a fox", "size": "64x64"},
    "/sdapi/v1/txt2img": SMALL,
    "/api/picture": SMALL,
}


def sha256(key):
    return hashlib.sha256(key.encode()).hexdigest()


def write(path, *entries):
    """A file of keys; the key of `ada` is `ada's` unless the entry says its `sha256`."""
    rows = [{"sha256": sha256(f"{entry['name']}'s"), **entry} for entry in entries]
    path.with_suffix(".new").write_text(json.dumps(rows))
    os.replace(path.with_suffix(".new"), path)
    return path


def ask(url, path="/v1/images/generations", key="ada's", **more):
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{url}{path}", json={**BODIES[path], **more}, headers=headers, timeout=30)


def interrupt(url, key):
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/sdapi/v1/interrupt", headers=headers)


def metrics(url, key="ada's"):
    answer = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"})
    return samples(answer.text)


def test_each_has_a_key_of_its_own_and_the_file_is_read_again(start, tmp_path):
    path = write(tmp_path / "keys.json", {"name": "ada"})
    url = start(keys=Keys(path)).url
    assert [ask(url, one).status_code for one in PATHS] == [200] * 3
    assert [ask(url, one, key="bob's").status_code for one in PATHS] == [401] * 3
    assert httpx.get(f"{url}/metrics").status_code == 401
    write(path, {"name": "bob"})
    assert ask(url).status_code == 401
    assert ask(url, key="bob's").status_code == 200
    path.write_text("no JSON")
    assert ask(url, key="bob's").status_code == 200
    path.unlink()
    assert ask(url, key="bob's").status_code == 200


def test_a_model_that_is_not_allowed_is_403_in_each_apis_shape(start, triton, tmp_path):
    triton.models = ["ink", "sd_ensemble"]
    url = start(keys=Keys(write(tmp_path / "keys.json", {"name": "ada", "models": ["ink"]}))).url
    words = "model: got 'sd_ensemble'; allowed with this key: ink"
    checkpoint = {"override_settings": {"sd_model_checkpoint": "sd_ensemble"}}
    named = ({"model": "sd_ensemble"}, checkpoint, {"model": "sd_ensemble"})
    openai, webui, page = (ask(url, one, **more) for one, more in zip(PATHS, named, strict=True))
    assert (openai.status_code, webui.status_code, page.status_code) == (403, 403, 403)
    error = openai.json()["error"]
    assert (error["message"], error["type"], error["code"]) == (
        *(words, "permission_error"),
        "model_not_allowed",
    )
    assert webui.json()["detail"] == words
    assert page.json()["message"] == words
    assert metrics(url)['triptych_gateway_refused_total{code="403",name="ada"}'] == 3


def test_pictures_at_a_time(start, triton, tmp_path):
    entries = {"name": "ada", "pictures_at_a_time": 1}, {"name": "bob", "pictures_at_a_time": 2}
    url = start(keys=Keys(write(tmp_path / "keys.json", *entries))).url
    triton.hold.clear()
    first = threading.Thread(target=ask, args=(url,))
    first.start()
    wait_for(lambda: metrics(url)['triptych_gateway_pictures_in_flight{name="ada"}'] == 1)
    refused = ask(url)
    assert refused.status_code == 429 and refused.headers["retry-after"] == "2"
    assert "1 of 1 pictures with this key" in refused.json()["error"]["message"]
    triton.hold.set()
    first.join()
    assert ask(url, key="bob's", n=2).status_code == 200
    many = ask(url, key="bob's", n=3)
    assert (many.status_code, many.json()["error"]["param"]) == (400, "n")
    said = many.json()["error"]["message"]
    assert said == "n: got 3; allowed: 2 at a time with this key"
    many = ask(url, "/sdapi/v1/txt2img", "bob's", batch_size=3)
    said = "batch_size: got 3, times n_iter 1; allowed: 2 at a time with this key"
    assert (many.status_code, many.json()["detail"]) == (400, said)
    refused = 'triptych_gateway_refused_total{code="%d",name="%s"}'
    found = metrics(url)
    assert [found[refused % (429, name)] for name in ("ada", "bob")] == [1, 0]
    assert found[refused % (403, "ada")] == 0
    pictures = {name: n for name, n in metrics(url).items() if "_pictures_" in name}
    assert pictures == {
        'triptych_gateway_pictures_total{name="ada"}': 1,
        'triptych_gateway_pictures_in_flight{name="ada"}': 0,
        'triptych_gateway_pictures_total{name="bob"}': 2,
        'triptych_gateway_pictures_in_flight{name="bob"}': 0,
    }


def test_progress_and_interrupt_are_about_the_pictures_of_the_key(start, triton, tmp_path):
    url = start(keys=Keys(write(tmp_path / "keys.json", {"name": "ada"}, {"name": "bob"}))).url
    answers = []

    def progress(key):
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{url}/sdapi/v1/progress", headers=headers).json()["state"]

    triton.hold.clear()
    drawing = threading.Thread(target=lambda: answers.append(ask(url, "/sdapi/v1/txt2img")))
    drawing.start()
    wait_for(lambda: progress("ada's")["job_count"] == 1)
    assert progress("bob's")["job_count"] == 0
    assert interrupt(url, "bob's").status_code == 200
    assert not progress("ada's")["interrupted"]
    interrupt(url, "ada's")
    drawing.join(10)
    assert answers[0].json()["images"] == []


def test_pictures_a_minute(start, tmp_path, monkeypatch):
    monkeypatch.setattr(keys_module, "MINUTE", 2.0)
    url = start(
        keys=Keys(write(tmp_path / "keys.json", {"name": "ada", "pictures_a_minute": 2}))
    ).url
    assert [ask(url).status_code for _ in range(3)] == [200, 200, 429]
    wait_for(lambda: ask(url).status_code == 200)


def test_what_the_server_has_not_begun_is_no_picture_of_the_minute(start, triton, tmp_path):
    entry = {"name": "ada", "pictures_a_minute": 3}
    url = start(keys=Keys(write(tmp_path / "keys.json", entry))).url
    triton.full = True
    assert ["queue is full" in ask(url, n=2).text for _ in range(3)] == [True] * 3
    triton.full, triton.abort = False, (grpc.StatusCode.INTERNAL, "it broke")
    assert [ask(url, one).status_code for one in PATHS] == [500] * 3
    triton.abort = None
    assert ask(url, size="60x64", n=3).status_code == 400
    triton.hold.clear()
    with pytest.raises(httpx.ReadTimeout):
        headers = {"Authorization": "Bearer ada's"}
        asked = {**BODIES[PATHS[0]], "n": 3}
        httpx.post(f"{url}{PATHS[0]}", json=asked, headers=headers, timeout=0.5)
    wait_for(lambda: triton.left == 3)
    triton.hold.set()
    triton.abort_after = (grpc.StatusCode.INTERNAL, "it broke")
    assert ask(url).status_code == 500  # when it was nearly there
    triton.abort_after = None
    assert ask(url, n=2).status_code == 200
    refused = ask(url)
    assert (refused.status_code, int(refused.headers["retry-after"]) > 30) == (429, True)
    assert "3 of 3 pictures a minute with this key are taken" in refused.text


def test_pictures_that_wait_for_their_first_step_take_room_in_the_minute(start, triton, tmp_path):
    entry = {"name": "ada", "pictures_a_minute": 2}
    url = start(keys=Keys(write(tmp_path / "keys.json", entry))).url
    triton.hold.clear()
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(ask, url) for _ in range(2)]
        wait_for(lambda: len(triton.requests) == 2)
        refused = ask(url)
        triton.hold.set()
        assert [one.result().status_code for one in first] == [200, 200]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert ask(url).status_code == 429


def test_a_name_has_two_keys_while_one_is_changed_for_the_other(start, tmp_path):
    both = {"name": "ada", "pictures_a_minute": 2, "sha256": [sha256("old"), sha256("new")]}
    path = write(tmp_path / "keys.json", both)
    url = start(keys=Keys(path)).url
    assert [ask(url, key=key).status_code for key in ("old", "new", "old")] == [200, 200, 429]
    write(path, {**both, "pictures_a_minute": 9, "sha256": [sha256("new")]})
    assert [ask(url, key=key).status_code for key in ("old", "new")] == [401, 200]
    assert metrics(url, "new")['triptych_gateway_pictures_total{name="ada"}'] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "Input should be a valid array"),
        ('[{"name": "a b", "sha256": ""}]', "0.name"),
        ('[{"name": "a"}]', "0.sha256: Field required"),
        (json.dumps([{"name": "a", "sha256": "0" * 64}] * 2), "name a stands there twice"),
        (json.dumps([{"name": "a", "sha256": ["0" * 64] * 2}]), f"sha256 {'0' * 64} stands there"),
        (json.dumps([{"name": "a", "sha256": []}]), "0.sha256: List should have at least 1"),
        (json.dumps([{"name": "a", "sha256": ["0" * 64] * 9}]), "0.sha256: List should have at mo"),
        (json.dumps([{"name": "a", "sha256": "0" * 64, "picture": 1}]), "0.picture"),
        (json.dumps([{"name": "a", "sha256": "0" * 64, "pictures_a_minute": 0}]), "0.pictures_a"),
    ],
)
def test_a_file_that_is_none_is_said_at_the_start(tmp_path, text, said):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        Keys(tmp_path / "keys.json")
    with pytest.raises(ValueError, match="No such file"):
        Keys(tmp_path / "none")


@pytest.mark.parametrize("path", FILES)
def test_a_body_is_not_read_of_who_has_no_key(start, path):
    address = httpx.URL(start(api_key="sesame").url)
    with socket.create_connection((address.host, address.port), timeout=10) as caller:
        length = "Content-Type: application/json\r\nContent-Length: 30000000"
        caller.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
        assert caller.recv(100).startswith(b"HTTP/1.1 401 ")
