from pathlib import Path

import pytest

from triptych_export import repository
from triptych_export.repository import replacement


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
    write(folder / "loop" / "config.pbtxt", "loop config")
    write(folder / "loop" / "1" / "model.py", "loop code")
    write(folder / "loop" / "1" / "pipeline.json", "old numbers")
    return folder


def fill(new) -> None:
    write(new.version_folder("unet") / "model.onnx", "new unet")
    write(new.version_folder("loop") / "pipeline.json", "new numbers")
    new.set_config("unet", "new config")


def test_a_commit_replaces_the_weights_and_keeps_the_code(served, tmp_path):
    with replacement(served, tmp_path / "none") as new:
        fill(new)
        new.commit()
    assert contents(served) == {
        "loop": None,
        "loop/1": None,
        "loop/1/model.py": "loop code",
        "loop/1/pipeline.json": "new numbers",
        "loop/config.pbtxt": "loop config",
        "unet": None,
        "unet/1": None,
        "unet/1/model.onnx": "new unet",
        "unet/config.pbtxt": "new config",
    }


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_without_a_commit_nothing_changes(served, tmp_path, error):
    before = contents(served)
    with pytest.raises(error), replacement(served, tmp_path / "none") as new:
        fill(new)
        raise error
    assert contents(served) == before


@pytest.mark.parametrize("failing", ["unet", "loop", "config.pbtxt"])
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
    write(served / "loop" / "1" / "__pycache__" / "model.pyc", "compiled")
    output = tmp_path / "deep" / "new"
    with replacement(output, served) as new:
        fill(new)
        new.commit()
    assert {name: text for name, text in contents(output).items() if text is not None} == {
        "loop/1/model.py": "loop code",
        "loop/1/pipeline.json": "new numbers",
        "loop/config.pbtxt": "loop config",
        "unet/1/model.onnx": "new unet",
        "unet/config.pbtxt": "new config",
    }


def test_a_failed_export_leaves_no_new_repository(served, tmp_path):
    with pytest.raises(RuntimeError), replacement(tmp_path / "deep" / "new", served) as new:
        fill(new)
        raise RuntimeError
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("killed_before", ["first", "second", "last"])
def test_what_a_killed_commit_left_is_mended(served, tmp_path, killed_before):
    before = contents(served)
    new = repository.Replacement(served)
    fill(new)
    if killed_before != "first":
        repository._swap(served / "unet")
    if killed_before == "last":
        repository._swap(served / "loop")
    with replacement(served, tmp_path / "none"):
        pass
    after = contents(served)
    if killed_before == "last":
        assert after["unet/1/model.onnx"] == "new unet"
        assert after["loop/1/pipeline.json"] == "new numbers"
        assert not any(name.endswith((".new", ".old")) for name in after)
    else:
        assert after == before


def test_a_model_outside_of_the_repository_is_replaced_too(served, tmp_path):
    with replacement(served, tmp_path / "none") as new:
        write(new.version_folder(str(tmp_path / "encoder")) / "model.onnx", "encoder")
        new.commit()
    assert contents(tmp_path / "encoder") == {"1": None, "1/model.onnx": "encoder"}
