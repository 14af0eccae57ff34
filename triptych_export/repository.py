"""Replaces models in a repository, all of them or none.

New version folders are written aside, as `MODEL/.new/`, which Triton does not read; `commit`
renames all of them into place, `MODEL/.old/` holding what was there until the last is in. Models
that the repository lacks are written to `.added/` in the folder of one that it has, since Triton
takes every folder in a repository for a model, and are moved from there when they are whole.

While `commit` does so, `UNFINISHED` lies beside them and tells what was there before: a server does
not start then, and after a kill the next export puts that back.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from triptych.names import ADDED, STAGES, UNFINISHED, Names
from triptych_export.config_edits import with_names

VERSION = "1"
ENGINES = "tensorrt"
"""How the files begin, in a model's folder, that TensorRT's engines are kept in."""


@contextmanager
def replacement(
    output: Path,
    template: Path | None = None,
    without: Collection[str] = (),
    names: Names | None = None,
) -> Iterator[Replacement]:
    """A Replacement in the repository `output`; left without its commit, nothing has changed.

    Models that `output` lacks are taken from `template`, a repository with the configurations
    and the Python models, but for those in `without`. `names` are what they are called in `output`,
    without it as in `template`. A KeyboardInterrupt says what became of `output`.
    """
    new = Replacement(output, names or Names())
    try:
        new.prepare(template, without)
        yield new
    except KeyboardInterrupt:
        state = "has the new model" if new.committed else "is as it was"
        raise KeyboardInterrupt(f"{output} {state}") from None
    finally:
        new.discard()


class Replacement:
    """New contents of some models' version folders in the repository `output`.

    Its methods take the names that the default model has; `names` says what they are in `output`.
    """

    def __init__(self, output: Path, names: Names):
        self.output = output
        self.names = names
        self.committed = False
        self._added = output / ADDED
        self._models: list[str] = []
        self._configs: dict[str, str] = {}

    def prepare(self, template: Path | None, without: Collection[str] = ()) -> None:
        """Mend what a killed export left, and take over the models that are missing."""
        _recover(self.output)
        self._added = _aside(self.output) / ADDED
        if template is not None and template.is_dir():
            for model in sorted(path.name for path in template.iterdir() if path.is_dir()):
                wanted = model in Names().all and model not in without
                if wanted and not self.path(model).exists():
                    self._copy_model(template / model)

    def path(self, model: str) -> Path:
        """The model's folder."""
        return self.output / self.names.own(model)

    def discard(self) -> None:
        """Take away everything that was not committed."""
        for model in self._models:
            shutil.rmtree(self.path(model) / ".new", ignore_errors=True)
        shutil.rmtree(self._added, ignore_errors=True)

    def version_folder(self, model: str) -> Path:
        """A folder that becomes the model's version folder, with its Python files and no others."""
        new = self._new(model)
        if not self.path(model).exists():
            new.mkdir(parents=True, exist_ok=True)
            return new
        if model in self._models:
            return new
        self._models.append(model)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        for path in sorted((self.path(model) / VERSION).glob("*.py")):
            shutil.copy2(path, new / path.name)
        return new

    def config(self, model: str) -> str | None:
        """The text of the model's config.pbtxt, as it will be, or None if it has none."""
        if model in self._configs:
            return self._configs[model]
        return self._saved_config(model)

    def set_config(self, model: str, text: str) -> None:
        if self.path(model).exists():
            self._configs[model] = text
        else:
            (self._folder(model) / "config.pbtxt").write_text(text, encoding="utf-8")

    @contextmanager
    def as_served(self) -> Iterator[Path]:
        """A repository elsewhere that links to the new version folders, as a commit puts them."""
        with tempfile.TemporaryDirectory() as folder:
            for model in STAGES:
                if self._new(model).is_dir():
                    link = Path(folder, self.names.own(model), VERSION)
                    link.parent.mkdir()
                    link.symlink_to(self._new(model).resolve())
            yield Path(folder)

    def commit(self) -> None:
        """Put everything in place; any failure puts everything back."""
        last = (self.names.model, self.names.stream)  # they need the others
        added = sorted(self._added.glob("*"), key=lambda folder: (folder.name in last, folder.name))
        before = {
            "lacking": [folder.name for folder in added],
            "configs": {self.path(name).name: self._saved_config(name) for name in self._configs},
        }
        with _signals_held():
            try:
                self._added.mkdir(exist_ok=True)
                _write_whole(self._added.parent / UNFINISHED, json.dumps(before))
                for model in self._models:
                    _swap(self.path(model))
                for folder in added:
                    folder.rename(self.output / folder.name)
                for model, text in self._configs.items():
                    _write_whole(self.path(model) / "config.pbtxt", text)
            except BaseException:
                _recover(self.output)
                raise
            self.committed = True
            swapped, self._models = self._models, []
            try:
                for model in swapped:
                    for engine in filter(Path.is_file, self.path(model).glob(f"{ENGINES}*")):
                        engine.unlink()  # it was built of other weights
            finally:
                shutil.rmtree(self._added)
            for model in swapped:
                _remove(self.path(model) / ".old", ignore_errors=True)

    def _folder(self, model: str) -> Path:
        """Where the model's folder is now: one that is not there yet is with the others aside."""
        folder = self.path(model)
        return folder if folder.exists() else self._added / folder.name

    def _new(self, model: str) -> Path:
        """Where the model's new version is written."""
        folder = self.path(model)
        return folder / ".new" if folder.exists() else self._folder(model) / VERSION

    def _saved_config(self, model: str) -> str | None:
        path = self._folder(model) / "config.pbtxt"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def _copy_model(self, source: Path) -> None:
        target = self._folder(source.name)
        (target / VERSION).mkdir(parents=True)
        for path in (source / "config.pbtxt", *source.glob("*.py"), *source.glob("1/*.py")):
            if path.is_file():
                shutil.copy2(path, target / path.relative_to(source))
        config = self._saved_config(source.name)
        if config is not None:
            renamed = with_names(config, self.names)
            if renamed != config:
                (target / "config.pbtxt").write_text(renamed, encoding="utf-8")


def _aside(output: Path) -> Path:
    """A folder in `output`, on its disk, that Triton looks into for versions of a model alone.

    Where there is no model yet that is `output` itself: there is nothing to serve then.
    """
    for config in sorted(output.glob("*/config.pbtxt")):
        folder = config.parent
        if not folder.is_symlink() and folder.stat().st_dev == output.stat().st_dev:
            return folder
    return output


def _recover(output: Path) -> None:
    """Mend what an export left: while a new folder waits, its renames were not all done."""
    added = [*output.glob(ADDED), *output.glob(f"*/{ADDED}")]
    for told in (*output.glob(UNFINISHED), *output.glob(f"*/{UNFINISHED}")):
        _put_back(told, output)
    unfinished = [*output.glob("*/.new"), *(folder for folder in added if any(folder.iterdir()))]
    for old in output.glob("*/.old"):
        if unfinished:
            _remove(old.parent / VERSION, ignore_errors=True)
            old.rename(old.parent / VERSION)
        else:
            _remove(old)
    for new in {*unfinished, *added}:
        shutil.rmtree(new)


def _put_back(told: Path, output: Path) -> None:
    """Undo what was renamed into the repository, but for the versions in `MODEL/.old/`."""
    before = json.loads(told.read_text(encoding="utf-8"))
    for name in before["lacking"]:
        if not (told.parent / name).exists():  # it was moved from there
            shutil.rmtree(output / name, ignore_errors=True)
    for name, text in before["configs"].items():
        if text is not None:
            _write_whole(output / name / "config.pbtxt", text)


def _remove(folder: Path, ignore_errors: bool = False) -> None:
    if folder.is_symlink():  # to another disk, as somebody has put it
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=ignore_errors)


def _swap(model: Path) -> None:
    if (model / VERSION).exists():
        (model / VERSION).rename(model / ".old")
    (model / ".new").rename(model / VERSION)


def _write_whole(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


@contextmanager
def _signals_held():
    """Ctrl-C and SIGTERM wait until the renames are done."""
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
