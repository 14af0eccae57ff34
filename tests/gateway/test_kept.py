"""Pictures that are asked for by url: for how long, and from which gateway."""

import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest

from triptych.gateway import kept as kept_module
from triptych.gateway.kept import SECONDS, Kept


def ask(gateway, **more):
    asked = {"prompt": "x", "response_format": "url", **more}
    return httpx.post(f"{gateway.url}/v1/images/generations", json=asked, timeout=30).json()


def url_of(answer):
    return httpx.URL(answer["data"][0]["url"])


@pytest.fixture(params=["folder", "url", "memory"])
def place(request, tmp_path):
    """A place that gateways can share: a folder, and URLs as fsspec has them."""
    memory = f"memory://{secrets.token_hex(8)}"
    return {"folder": str(tmp_path), "url": tmp_path.as_uri(), "memory": memory}[request.param]


@pytest.fixture
def clock(monkeypatch):
    """`clock.now`, which the test moves on."""
    clock = SimpleNamespace(now=time.time(), time=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr(kept_module, "time", clock)
    return clock


def get(kept, address):
    name, _, signature = address.partition("?signature=")
    return kept.get(name, signature)


def test_gateways_with_a_place_in_common_answer_for_each_other(start, place):
    one, other = (start(kept=Kept(place)) for _ in range(2))
    alone = start()
    url = url_of(ask(one))
    assert str(url).startswith(one.url)
    given = httpx.get(url)
    assert given.status_code == 200 and given.headers["content-type"] == "image/png"
    target = url.raw_path.decode()
    elsewhere = httpx.get(other.url + target)
    assert (elsewhere.status_code, elsewhere.content) == (200, given.content)
    assert httpx.get(alone.url + target).status_code == 404


def test_an_address_that_is_wrong_or_too_old_is_told(start, place, clock):
    gateway = start(kept=Kept(place))
    url = url_of(ask(gateway))
    signature = url.params["signature"]
    later = url.path.replace("until-1", "until-2")
    for wrong in (
        url.copy_with(query=None),
        url.copy_set_param("signature", signature[:-1]),
        url.copy_set_param("signature", "é" + signature[1:]),
        url.copy_with(path=later),
        url.copy_with(path="/images/secret"),
    ):
        answer = httpx.get(wrong)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"].startswith("no picture at this address: ")
    clock.now += SECONDS - 2
    assert httpx.get(url).status_code == 200
    clock.now += 2
    assert httpx.get(url).status_code == 404


def test_a_jobs_address_is_good_at_another_gateway(start, place):
    one, other = (start(kept=Kept(place)) for _ in range(2))
    job = f"{one.url}/v1/images/generations/{ask(one, background=True)['id']}"
    while (told := httpx.get(job).json())["state"] in ("queued", "running"):
        time.sleep(0.05)
    target = url_of(told["result"]).raw_path.decode()
    assert httpx.get(other.url + target).status_code == 200


def test_gateways_that_start_at_once_agree_on_the_secret(tmp_path):
    all_there = threading.Barrier(8)

    def begin(_):
        all_there.wait()
        return Kept(str(tmp_path))

    with ThreadPoolExecutor(8) as pool:
        one, *others = pool.map(begin, range(8))
    address = one.put(b"a picture", "png")
    assert [get(other, address) for other in others] == [b"a picture"] * 7


def test_a_secret_that_is_none_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_module, "TRIES", 2)
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(ValueError, match="secret does not have 32 bytes; delete it"):
        Kept(str(tmp_path))


def test_a_folder_that_takes_no_file_is_told(start, tmp_path, caplog):
    folder = tmp_path / "pictures"
    folder.mkdir()
    gateway = start(kept=Kept(str(folder)))
    (folder / "secret").unlink()
    folder.rmdir()
    answer = ask(gateway)["error"]
    assert answer["type"] == "server_error"
    assert answer["message"].endswith("ask for response_format b64_json")
    assert str(folder) in caplog.text and str(folder) not in answer["message"]


def test_a_picture_that_cannot_be_read_is_told(start, tmp_path, caplog):
    gateway = start(kept=Kept(str(tmp_path)))
    url = url_of(ask(gateway))
    name = url.path.rpartition("/")[2]
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    answer = httpx.get(url)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "the picture cannot be read now: try again later"
    assert str(tmp_path) in caplog.text


def test_the_oldest_go_first_and_none_stays_for_longer_than_an_hour(place, clock, monkeypatch):
    monkeypatch.setattr(kept_module, "MAX_BYTES", 25)
    kept = Kept(place)
    addresses = []
    for number in range(3):
        addresses.append(kept.put(b"picture %02d" % number, "png"))
        clock.now += 1
    assert [get(kept, one) for one in addresses] == [None, b"picture 01", b"picture 02"]
    clock.now += SECONDS
    newest = kept.put(b"new", "png")
    clock.now -= SECONDS  # the old addresses are good again, but for their pictures
    assert [get(kept, one) for one in (*addresses, newest)] == [None, None, None, b"new"]


def test_memory_is_a_gateways_own():
    assert get(Kept(), Kept().put(b"a picture", "png")) is None
    own = Kept()
    assert get(own, own.put(b"a picture", "png")) == b"a picture"


def test_other_files_in_the_folder_are_neither_given_nor_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_module, "MAX_BYTES", 0)
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"a key")
    kept = Kept(str(folder))
    (folder / "notes.png").write_bytes(b"notes")
    kept.put(b"a picture", "png")
    assert sorted(os.listdir(folder)) == ["notes.png", "secret"]
    for name in ("notes.png", "secret", "../secret.png", ".."):
        assert kept.get(name, kept._signature(name)) is None
