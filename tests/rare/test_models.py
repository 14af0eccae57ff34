"""Two models in one server, whose second is unloaded and loaded again while both draw."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest

from tests import lora_files
from tests.server import repositories
from tests.server.calls import SECRET, metrics, texts
from tests.server.faults import wait
from triptych import cli
from triptych.client import Client, NotReady, Refused
from triptych.names import Names
from triptych.server import restricted
from triptych.server.running import RunningServer

SMALL = {"height": 64, "width": 64, "num_inference_steps": 4, "scheduler": "ddim"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = repositories.linked(folder / "models", repositories.MODELS)
    repositories.with_model(models, "ink")
    files = models / Names("ink").stage("unet") / "loras"
    files.mkdir(exist_ok=True)
    lora_files.write(files, "chalk", lora_files.changes(1))
    for stage in ("tokenizer", "unet_loop"):
        file = models / Names("ink").stage(stage) / "1" / "pipeline.json"
        numbers = json.loads(file.read_text())
        file.unlink()
        file.write_text(json.dumps({**numbers, "num_inference_steps": 5}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(restricted.VARIABLE, SECRET)
        flags = "--model-control-mode=explicit", "--load-model=*"
        with RunningServer(models, folder / "server.log", *flags) as running:
            yield running


@pytest.fixture
def client(server):
    with Client(server.grpc) as client:
        yield client


def models(server, *arguments):
    """`triptych models` with these arguments: its exit code, in a process with the secret."""
    command = [sys.executable, "-m", "triptych.cli", "models", "--url", server.grpc, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class Drawing(threading.Thread):
    """One picture after another by one model; `answers`: files and errors, in their order."""

    def __init__(self, client, model, streamed):
        super().__init__()
        self.answers, self.ended = [], False
        self._client, self._model, self._streamed = client, model, streamed

    def run(self):
        asked = {**SMALL, "model": self._model, "seed": 3}
        while not self.ended:
            try:
                if self._streamed:
                    *steps, picture = self._client.stream("a red circle", 60, **asked)
                    assert steps
                else:
                    picture = self._client.generate("a red circle", 60, **asked)
                self.answers.append(picture.file)
            except Exception as error:
                self.answers.append(error)
                time.sleep(0.2)

    def count(self, kind):
        return sum(isinstance(answer, kind) for answer in self.answers)

    def errors(self, besides=()):
        return [a for a in self.answers if isinstance(a, Exception) and not isinstance(a, besides)]


@contextlib.contextmanager
def drawing(client):
    threads = [Drawing(client, *one) for one in [("sd_ensemble", False), ("sd_ensemble", True)]]
    threads += [Drawing(client, *one) for one in [("ink", False), ("ink", True)]]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.ended = True
        for thread in threads:
            thread.join(60)


def test_each_has_its_own_settings_and_counts(server, client):
    assert client.models() == ["sd_ensemble", "ink"]
    assert client.settings_of("x", "ink").num_inference_steps == 5
    assert client.settings_of("x").num_inference_steps != 5
    before = metrics(server.metrics)
    assert client.generate("x", 60, model="ink", **SMALL).settings.model == "ink"
    after = metrics(server.metrics)
    steps = "triptych_steps_total"
    assert after[steps, "ink.unet_loop"] == before.get((steps, "ink.unet_loop"), 0) + 4
    assert after.get((steps, "unet_loop")) == before.get((steps, "unet_loop"))


def test_errors_name_the_stage_and_the_models(client):
    with pytest.raises(NotReady, match=r"inc is not loaded; there is sd_ensemble, ink$"):
        client.generate("x", 60, model="inc")
    with pytest.raises(Refused, match=r"^width: got 7; allowed: "):
        client.generate("x", 60, model="ink", width=7)
    inputs = {"INPUT_0": texts(b"x", b"x").reshape(1, 2)}
    with pytest.raises(Refused, match=r"ink\.tokenizer"):
        client.ask("ink.tokenizer", 60, **inputs)


def test_the_tour_of_a_named_model(server, tmp_path, capsys):
    arguments = ["--url", server.grpc, "--model", "ink", "-o", str(tmp_path / "x.png")]
    assert cli.main(["stages", *arguments, "--steps", "2", "--width", "64", "--height", "64"]) == 0
    assert "ink gives the very same file" in capsys.readouterr().out


def test_one_is_unloaded_and_loaded_again_while_the_other_draws(server, client):
    with drawing(client) as threads:
        plain, streamed, *others = threads
        wait(lambda: all(thread.count(bytes) > 1 for thread in threads))
        done = models(server, "--unload", "ink")
        assert (done.returncode, done.stderr) == (0, "")
        assert "ink.unet: unloaded" in done.stdout and done.stdout.endswith("served: sd_ensemble\n")
        before = len(plain.answers), len(streamed.answers)
        wait(lambda: len(plain.answers) > before[0] + 2 and len(streamed.answers) > before[1] + 2)
        done = models(server, "--load", "ink")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("served: sd_ensemble\nserved: ink\n")
        wait(lambda: all(isinstance(thread.answers[-1], bytes) for thread in threads))
    for thread in (plain, streamed):
        assert thread.errors() == []
    for thread in others:
        assert thread.errors() and thread.errors(besides=NotReady) == []
    for two in (threads[:2], threads[2:]):
        assert len({a for thread in two for a in thread.answers if isinstance(a, bytes)}) == 1


def test_models_that_are_not_there_and_a_wrong_secret(server, monkeypatch):
    done = models(server, "--load", "inc")
    assert (done.returncode, done.stdout) == (2, "")
    assert "model: got 'inc'; allowed: sd_ensemble, ink" in done.stderr
    monkeypatch.setenv(restricted.VARIABLE, "wrong")
    done = models(server, "--unload", "ink")
    assert done.returncode == 1
    assert "set TRIPTYCH_SECRET here" in done.stderr


def test_a_model_has_loras_of_its_own(client):
    asked = {**SMALL, "seed": 3}
    assert "chalk" in client.loras("ink") and "chalk" not in client.loras()
    plain = client.generate("a red circle", 60, model="ink", **asked)
    changed = client.generate("a red circle", 60, model="ink", loras=[{"name": "chalk"}], **asked)
    assert [(one.name, one.scale) for one in changed.settings.loras] == [("chalk", 1.0)]
    assert changed.file != plain.file
    with pytest.raises(Refused, match="loras: got 'chalk'"):
        client.generate("a red circle", 60, loras=[{"name": "chalk"}], **asked)
