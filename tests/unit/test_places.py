"""Paths that Triton cannot take, and what stands in for them."""

import os

import pytest

from triptych.server import Unfit, embedded, places, preflight

ODD = ["my repo", "输出仓库", "it's", "a;b", "$HOME", "tab\there", "ü", "(x)", "a&b", "back\\slash"]


@pytest.mark.parametrize("name", ODD)
def test_a_link_stands_in_for_a_repository_that_triton_cannot_take(tmp_path, monkeypatch, name):
    (tmp_path / name / "unet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    links = tmp_path / "links"
    links.mkdir()
    given = [
        f"--model-repository={name}",
        "--http-port",
        "1",
        "--model-store",
        str(tmp_path / name),
    ]
    made = places.with_plain_repositories([*given, "--model-repository=s3://a b/c"], links)
    first, second = links / "repository-0", links / "repository-1"
    assert made == [
        *(f"--model-repository={first}", "--http-port", "1", "--model-store", str(second)),
        "--model-repository=s3://a b/c",
    ]
    for link in (first, second):
        assert (link / "unet").samefile(tmp_path / name / "unet")


def test_a_plain_repository_stays(tmp_path):
    given = ["--model-repository=/srv/models-1.5_x/repo", "--model-store", "model_repository"]
    assert places.with_plain_repositories(given, tmp_path) == given
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "ü", "long" * 20])
def test_the_runs_folder_is_where_its_path_is_short_and_plain(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path / name))
    assert str(places.temporary_folder()) in ("/tmp", "/var/tmp")
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: "/dev/shm")
    assert str(places.temporary_folder()) == "/dev/shm"


def test_nowhere_to_write_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(places.os, "access", lambda *_: False)
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: "/a b")
    with pytest.raises(Unfit, match=r"^TMPDIR=/a b: allowed: a path of at most 48 ASCII"):
        places.temporary_folder()

    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory")

    monkeypatch.setattr(places.tempfile, "gettempdir", nowhere)
    with pytest.raises(
        Unfit, match=r"^no temporary folder: No usable temporary directory: set TMP"
    ):
        places.temporary_folder()


def test_a_model_whose_name_triton_cannot_take(tmp_path):
    for name in ("unet", "sd ensemble"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").touch()
    with pytest.raises(Unfit, match="model 'sd ensemble': allowed: a name in ASCII"):
        preflight.check_repository([f"--model-repository={tmp_path}"])


def test_libraries_are_named_to_the_loader_by_plain_paths(tmp_path, monkeypatch):
    triton = tmp_path / "a;b ü" / "pytriton" / "tritonserver"
    (tmp_path / "a;b ü" / "nvidia_pytriton.libs").mkdir(parents=True)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    env = embedded.environment(triton, tmp_path)
    first = env["LD_LIBRARY_PATH"].split(os.pathsep)[0]
    assert first == f"{tmp_path}/triton-libraries"
    assert os.path.samefile(first, tmp_path / "a;b ü" / "nvidia_pytriton.libs")
