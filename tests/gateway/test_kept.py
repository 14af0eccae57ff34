"""Pictures that are asked for by url: for how long, and from which gateway."""

import os
import time

import httpx
import pytest

from triptych.gateway import kept as kept_module
from triptych.gateway.kept import Kept, KeptInFolder

NAMES = [f"{number:024d}.png" for number in range(4)]


def ask(gateway):
    asked = {"prompt": "x", "response_format": "url"}
    return httpx.post(f"{gateway.url}/v1/images/generations", json=asked, timeout=30)


def test_gateways_with_a_folder_in_common_answer_for_each_other(start, tmp_path):
    one, other = (start(pictures_folder=tmp_path) for _ in range(2))
    alone = start()
    url = httpx.URL(ask(one).json()["data"][0]["url"])
    assert str(url).startswith(one.url)
    given = httpx.get(url)
    assert given.status_code == 200 and given.headers["content-type"] == "image/png"
    elsewhere = httpx.get(f"{other.url}{url.path}")
    assert (elsewhere.status_code, elsewhere.content) == (200, given.content)
    assert httpx.get(f"{alone.url}{url.path}").status_code == 404


def test_a_folder_that_takes_no_file_is_told(start, tmp_path, caplog):
    folder = tmp_path / "pictures"
    folder.mkdir()
    gateway = start(pictures_folder=folder)
    folder.rmdir()
    answer = ask(gateway)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].endswith("ask for response_format b64_json")
    assert str(folder) in caplog.text and str(folder) not in answer.text


@pytest.mark.parametrize("make", [lambda _: Kept(), KeptInFolder])
def test_the_oldest_go_first_and_none_stays_for_longer_than_an_hour(make, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_module, "MAX_BYTES", 25)
    kept = make(tmp_path)
    for name in NAMES[:3]:
        kept.put(name, name.encode()[-10:])
        time.sleep(0.02)  # two files are not of the same time
    assert [kept.get(name) for name in NAMES[:3]] == [None, *(b"000001.png", b"000002.png")]
    monkeypatch.setattr(kept_module, "SECONDS", 0)
    assert kept.get(NAMES[2]) is None


def test_other_files_in_the_folder_are_neither_given_nor_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_module, "MAX_BYTES", 0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.png").write_bytes(b"a key")
    kept = KeptInFolder(tmp_path / "folder")
    (tmp_path / "folder" / "notes.png").write_bytes(b"notes")
    kept.put(NAMES[0], b"a picture")
    assert os.listdir(tmp_path / "folder") == ["notes.png"]
    for name in ("notes.png", "../secret.png", f".{NAMES[0]}", ".."):
        assert kept.get(name) is None
