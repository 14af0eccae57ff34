import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from triptych.names import Names
from triptych.server import Unfit, preflight
from triptych_export import repository
from triptych_export.errors import ExportError
from triptych_export.held import held
from triptych_export.repository import replacement

TEMPLATE = Path(__file__).resolve().parents[2] / "model_repository"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def contents(folder: Path) -> dict:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def served(tmp_path):
    """A repository with a network and a Python model, both with old contents."""
    folder = tmp_path / "served"
    write(folder / "unet" / "config.pbtxt", "unet config")
    write(folder / "unet" / "1" / "model.onnx", "old unet")
    write(folder / "unet" / "1" / "model.onnx.data", "old data")
    write(folder / "unet_loop" / "config.pbtxt", "loop config")
    write(folder / "unet_loop" / "1" / "model.py", "loop code")
    write(folder / "unet_loop" / "1" / "pipeline.json", "old numbers")
    return folder


def fill(new) -> None:
    write(new.version_folder("unet") / "model.onnx", "new unet")
    write(new.version_folder("unet_loop") / "pipeline.json", "new numbers")
    new.set_config("unet", "new config")


def test_a_commit_replaces_the_weights_and_keeps_the_code(served, tmp_path):
    with replacement(served, tmp_path / "none") as new:
        fill(new)
        new.commit()
    assert contents(served) == {
        "unet_loop": None,
        "unet_loop/1": None,
        "unet_loop/1/model.py": "loop code",
        "unet_loop/1/pipeline.json": "new numbers",
        "unet_loop/config.pbtxt": "loop config",
        "unet": None,
        "unet/1": None,
        "unet/1/model.onnx": "new unet",
        "unet/config.pbtxt": "new config",
    }


def test_engines_of_the_weights_before_go_with_them(served, tmp_path):
    for model in ("unet", "text_encoder"):
        write(served / model / "tensorrt_12_sm80.engine", "an engine")
    with replacement(served, tmp_path / "none") as new:
        fill(new)
        assert (served / "unet" / "tensorrt_12_sm80.engine").exists()
        new.commit()
    left = [path.parent.name for path in served.rglob("*.engine")]
    assert left == ["text_encoder"]  # whose weights stay


def test_a_version_that_is_a_link_to_another_disk_is_replaced(served, tmp_path):
    (served / "unet" / "1").rename(tmp_path / "disk")
    (served / "unet" / "1").symlink_to(tmp_path / "disk")
    for _ in range(2):
        with replacement(served, tmp_path / "none") as new:
            fill(new)
            new.commit()
    assert contents(served)["unet/1/model.onnx"] == "new unet"
    assert list((tmp_path / "disk").iterdir()) != []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_without_a_commit_nothing_changes(served, tmp_path, error):
    before = contents(served)
    with pytest.raises(error), replacement(served, tmp_path / "none") as new:
        fill(new)
        raise error
    assert contents(served) == before


@pytest.mark.parametrize("failing", ["unet", "unet_loop", "config.pbtxt"])
def test_a_failure_during_the_commit_puts_everything_back(served, tmp_path, monkeypatch, failing):
    before = contents(served)
    rename, replace = Path.rename, Path.replace

    def failing_rename(path, target):
        if path.name == ".new" and path.parent.name == failing:
            raise OSError("disk is gone")
        return rename(path, target)

    def failing_replace(path, target):
        if Path(target).name == failing and path.read_text() == "new config":
            raise OSError("disk is gone")
        return replace(path, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    monkeypatch.setattr(Path, "replace", failing_replace)
    with pytest.raises(OSError, match="disk"), replacement(served, tmp_path / "none") as new:
        fill(new)
        new.commit()
    assert contents(served) == before


def test_a_new_repository_gets_configurations_and_code_of_the_template(served, tmp_path):
    write(served / "unet_loop" / "1" / "__pycache__" / "model.pyc", "compiled")
    output = tmp_path / "deep" / "new"
    with replacement(output, served) as new:
        fill(new)
        new.commit()
    assert {name: text for name, text in contents(output).items() if text is not None} == {
        "unet_loop/1/model.py": "loop code",
        "unet_loop/1/pipeline.json": "new numbers",
        "unet_loop/config.pbtxt": "loop config",
        "unet/1/model.onnx": "new unet",
        "unet/config.pbtxt": "new config",
    }


def test_a_failed_export_leaves_no_new_repository(served, tmp_path):
    output = tmp_path / "deep" / "new"
    with pytest.raises(RuntimeError), held(output), replacement(output, served) as new:
        fill(new)
        raise RuntimeError
    assert not (tmp_path / "deep").exists()


def test_what_another_has_put_beside_a_new_repository_stays(tmp_path):
    with pytest.raises(RuntimeError), held(tmp_path / "deep" / "new"):
        write(tmp_path / "deep" / "other", "another's")
        raise RuntimeError
    assert contents(tmp_path) == {"deep": None, "deep/other": "another's"}


def test_two_exports_at_once_into_one_repository_are_refused(served, tmp_path):
    refused = pytest.raises(ExportError, match=f"{served}: another export")
    with held(served), replacement(served, tmp_path / "none") as new:
        fill(new)
        with refused, held(served):
            pass
        new.commit()
    assert contents(served)["unet/1/model.onnx"] == "new unet"
    before = contents(served)
    with held(served):
        pass
    assert contents(served) == before


@pytest.mark.parametrize("killed_before", ["first", "second", "last"])
def test_what_a_killed_commit_left_is_mended(served, tmp_path, killed_before):
    before = contents(served)
    new = repository.Replacement(served, Names())
    fill(new)
    if killed_before != "first":
        repository._swap(served / "unet")
    if killed_before == "last":
        repository._swap(served / "unet_loop")
    with replacement(served, tmp_path / "none"):
        pass
    after = contents(served)
    if killed_before == "last":
        assert after["unet/1/model.onnx"] == "new unet"
        assert after["unet_loop/1/pipeline.json"] == "new numbers"
        assert not any(name.endswith((".new", ".old")) for name in after)
    else:
        assert after == before


def killed_before(change: int, commit) -> bool:
    """Whether a process that commits was killed before the change of that number to the disk."""
    changes = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
    left = change

    def kill(event, arguments):
        nonlocal left
        if event in changes or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        sys.addaudithook(kill)
        commit()
        os._exit(0)
    return bool(os.waitpid(child, 0)[1])


def seen_by_triton(folder: Path) -> dict:
    """None of its parts begins with a dot; what is new of a configuration is no configuration."""
    found = contents(folder).items()
    return {name: text for name, text in found if not re.search(r"(^|/)\.|\.new$", name)}


@pytest.mark.parametrize("names", [Names(), Names("ink")])
def test_a_commit_that_is_killed_leaves_no_mixture_that_is_served(served, tmp_path, names):
    """A server starts with the old models or with the new ones; the next export leaves either.

    An engine of the old weights may be gone: what serves builds it again.
    """
    engine = "unet/tensorrt_12_sm80.engine"

    def export(folder):
        new = repository.Replacement(folder, names)
        new.prepare(TEMPLATE)
        fill(new)
        write(new.version_folder("vae_encoder") / "model.onnx", "new encoder")
        return new

    without = contents(served)
    write(served / engine, "an engine")
    before = contents(served)
    whole = Path(shutil.copytree(served, tmp_path / "whole"))
    export(whole).commit()
    after = contents(whole)
    assert after[f"{names.stage('vae_encoder')}/1/model.onnx"] == "new encoder"
    assert (engine in after) == (names != Names())
    refused = 0
    for change in range(100):
        killed = Path(shutil.copytree(served, tmp_path / f"{change}"))
        if not killed_before(change, export(killed).commit):
            break
        try:
            preflight.check_repository([f"--model-repository={killed}"])
        except Unfit as why:
            refused += 1
            assert f"{killed}: an export" in str(why)
        else:
            assert seen_by_triton(killed) in (before, after)
        with replacement(killed, tmp_path / "none"):
            pass
        assert contents(killed) in (before, without, after)
    assert refused and contents(killed) == after


def test_while_a_model_is_written_where_triton_looks_no_server_starts(served, tmp_path):
    """Triton would fail at `.added`, which is in no model's folder where all are on other disks."""
    disk = Path(served.rename(tmp_path / "disk"))
    served.mkdir()
    for model in disk.iterdir():
        (served / model.name).symlink_to(model)
    starts = [f"--model-repository={served}"]
    with replacement(served, TEMPLATE, names=Names("ink")) as new:
        with pytest.raises(Unfit, match=f"{served}: an export"):
            preflight.check_repository(starts)
        new.commit()
        preflight.check_repository(starts)


def test_a_model_of_another_name_stands_beside_the_others(served, tmp_path):
    before = contents(served)
    with replacement(served, TEMPLATE, ("vae_encoder",), Names("ink")) as new:
        write(new.version_folder("unet") / "model.onnx", "ink")
        assert 'name: "ink.unet"\n' in new.config("unet")
        new.commit()
    after = contents(served)
    assert {name: after[name] for name in before} == before
    assert after["ink.unet/1/model.onnx"] == "ink"
    ensemble = after["ink/config.pbtxt"]
    plain = (TEMPLATE / "sd_ensemble" / "config.pbtxt").read_text()
    assert re.findall(r'model_name: "(.*)"', ensemble) == [
        f"ink.{stage}" for stage in re.findall(r'model_name: "(.*)"', plain)
    ]
    assert 'name: "ink_stream"\n' in after["ink_stream/config.pbtxt"]
    inputs = (TEMPLATE / "tokenizer" / "config.pbtxt").read_text().partition("input")[2]
    assert after["ink.tokenizer/config.pbtxt"].partition("input")[2] == inputs


def test_of_a_template_the_default_model_alone_is_taken(served, tmp_path):
    write(served / "ink.unet" / "config.pbtxt", "another model's")
    with replacement(tmp_path / "output", served) as new:
        new.commit()
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["unet", "unet_loop"]


def holds_no_model_without_weights(folder: Path) -> bool:
    """Triton takes each folder in a repository for a model; of an ensemble the version is empty."""
    models = [path for path in folder.iterdir() if path.is_dir() and path.name != "ink"]
    return all(any(path.glob("1/*")) for path in models)


def test_a_new_model_is_in_the_repository_when_it_is_whole(served, tmp_path, monkeypatch):
    moved, rename = [], Path.rename

    def noted(path, target):
        moved.append(Path(target).name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    with replacement(served, TEMPLATE, names=Names("ink")) as new:
        for model in ("text_encoder", "unet", "vae_decoder", "vae_encoder", "tokenizer"):
            write(new.version_folder(model) / "model", "weights")
            assert holds_no_model_without_weights(served)
        new.commit()
    assert holds_no_model_without_weights(served)
    assert (served / "ink.unet" / "1" / "model").read_text() == "weights"
    assert moved[-2:] == ["ink", "ink_stream"]  # what needs all others comes last
    assert not list(served.rglob(".*"))


def test_a_killed_export_of_a_new_model_leaves_none_and_the_next_takes_it_away(served, tmp_path):
    before = contents(served)
    killed = repository.Replacement(served, Names("ink"))
    killed.prepare(TEMPLATE)
    write(killed.version_folder("unet") / "model.onnx", "ink")
    assert holds_no_model_without_weights(served)
    with replacement(served, tmp_path / "none"):
        pass
    assert contents(served) == before


@pytest.mark.parametrize("failing", ["ink.tokenizer", "ink"])
def test_a_new_model_that_cannot_be_moved_is_taken_away(served, tmp_path, monkeypatch, failing):
    before = contents(served)
    rename = Path.rename

    def failing_rename(path, target):
        if Path(target) == served / failing:
            raise OSError("disk is gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(OSError, match="disk"), replacement(
        served, TEMPLATE, names=Names("ink")
    ) as new:
        write(new.version_folder("unet") / "model.onnx", "ink")
        new.commit()
    assert contents(served) == before


def test_an_old_engine_that_cannot_be_removed_leaves_the_new_model(served, tmp_path, monkeypatch):
    write(served / "unet" / "tensorrt_12_sm80.engine", "an engine")
    template = tmp_path / "template"
    write(template / "vae_encoder" / "config.pbtxt", "encoder config")

    def kept(path, missing_ok=False):
        raise OSError("not yours")

    monkeypatch.setattr(Path, "unlink", kept)
    with pytest.raises(OSError, match="not yours"), replacement(served, template) as new:
        fill(new)
        write(new.version_folder("vae_encoder") / "model.onnx", "new encoder")
        new.commit()
    assert contents(served)["unet/1/model.onnx"] == "new unet"
    assert contents(served)["vae_encoder/1/model.onnx"] == "new encoder"


def test_an_interrupt_says_what_became_of_the_repository(served, tmp_path, monkeypatch):
    said = pytest.raises(KeyboardInterrupt, match="is as it was")
    with said, replacement(served, tmp_path / "none") as new:
        fill(new)
        raise KeyboardInterrupt
    swap = repository._swap

    def interrupted(model):
        swap(model)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(repository, "_swap", interrupted)
    said = pytest.raises(KeyboardInterrupt, match="has the new model")
    with said, replacement(served, tmp_path / "none") as new:
        fill(new)
        new.commit()
    assert contents(served)["unet/1/model.onnx"] == "new unet"
