"""Models loaded, unloaded and loaded again while requests run; files that cannot be loaded."""

import contextlib
import json
import re

import pytest

from tests.server import repositories
from tests.server.calls import SECRET, Calls, order, request
from tests.server.faults import CLIENTS, SETTINGS, Load, wait
from triptych.server import restricted
from triptych.server.running import RunningServer

STAGES = ("tokenizer", "text_encoder", "unet", "unet_loop", "vae_decoder", "image_encoder")


def start(folder, repository, monkeypatch, *flags):
    """A server on a repository of its own, whose UNet is quick."""
    monkeypatch.setenv(restricted.VARIABLE, SECRET)
    models = repositories.with_unet(repositories.linked(folder / "models", repository))
    return RunningServer(models, folder / "server.log", *flags)


@pytest.fixture(scope="module")
def explicit(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explicit")
    with pytest.MonkeyPatch.context() as patch:
        # After a load that failed, Triton 24.10 waits at its end as if that model lived.
        flags = "--model-control-mode=explicit", "--load-model=*", "--exit-timeout-secs=3"
        with start(folder, repository, patch, *flags) as server:
            server.models = folder / "models"
            yield server


def answered(load):
    return len(load.answers)


def failures(load):
    return [str(answer) for _, answer in load.answers if isinstance(answer, Exception)]


def loaded(server, stage):
    return server.log.read_text().count(f"successfully loaded '{stage}'")


@contextlib.contextmanager
def changed(models, stage):
    """A copy of its files in their place: Triton loads nothing again that is as old as before."""
    linked = (models / stage).is_symlink()
    if linked:
        repositories.own(models, stage)
    (models / stage / "config.pbtxt").touch()
    yield
    if linked:
        repositories.link_again(models, stage)


def test_every_stage_is_loaded_again_while_requests_run(explicit):
    with Load(explicit.grpc, CLIENTS) as load:
        wait(lambda: answered(load) > 0)
        for stage in STAGES:
            before, told = answered(load), loaded(explicit, stage)
            with changed(explicit.models, stage):
                assert order(explicit, "load", stage) == (200, "")
            assert loaded(explicit, stage) == told + 1
            wait(lambda before=before: answered(load) > before + CLIENTS)
    assert not failures(load)
    assert len({answer for _, answer in load.answers}) == CLIENTS


def test_a_stage_is_unloaded_and_loaded_while_requests_run(explicit):
    with Load(explicit.grpc, CLIENTS) as load:
        wait(lambda: answered(load) > CLIENTS)
        assert order(explicit, "unload", "vae_decoder")[0] == 200
        wait(lambda: len(failures(load)) > 2)
        assert order(explicit, "load", "vae_decoder") == (200, "")
        wait(lambda: isinstance(load.answers[-1][1], bytes))
    for failure in failures(load):
        assert re.search("vae_decoder|sd_ensemble", failure), failure
    assert len({answer for _, answer in load.answers if isinstance(answer, bytes)}) == CLIENTS
    assert explicit.process.poll() is None
    assert "starting it again" not in explicit.log.read_text()


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("model", "name", "spoil", "says"),
    [
        ("text_encoder", "1/model.onnx", cut, r"model\.onnx: cannot be loaded \(.*export_stages"),
        ("text_encoder", "1/model.onnx", "unlink", r"model\.onnx: no such file; make it with"),
        (
            "vae_decoder",
            "config.pbtxt",
            "name: }",
            r"failed to read text proto from \S+/vae_decoder/config\.pbtxt",
        ),
        ("unet_loop", "1/pipeline.json", "{", r"pipeline\.json: cannot be read \(.*; export the"),
        ("tokenizer", "1/vocab.json", "unlink", r"vocab\.json: no such file; copy the tokenizer"),
        ("tokenizer", "1/vocab.json", "more", r"\d+ tokens, but the text encoder has \d+; copy"),
    ],
)
def test_a_damaged_file_is_a_load_error_and_what_was_loaded_goes_on(
    explicit, model, name, spoil, says
):
    folder = repositories.own(explicit.models, model)
    path = folder / name
    if spoil == "unlink":
        path.unlink()
    elif spoil == "more":
        vocabulary = json.loads(path.read_text())
        more = {f"word{n}</w>": len(vocabulary) + n for n in range(200)}
        path.write_text(json.dumps({**vocabulary, **more}))
    elif callable(spoil):
        spoil(path)
    else:
        path.write_text(spoil)
    before = len(explicit.log.read_text())
    try:
        status, words = order(explicit, "load", model)
        assert status in (400, 500)  # the latter where Triton cannot read its own file
        logged = explicit.log.read_text()[before:]
        assert re.search(says, logged if name == "config.pbtxt" else words), (words, logged)
        calls = Calls(explicit.grpc)
        calls.pictures(request("x", **SETTINGS))
        calls.close()
    finally:
        repositories.link_again(explicit.models, model)
        assert order(explicit, "load", model) == (200, "")
