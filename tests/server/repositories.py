"""Model repositories like the one under test, with some models replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

from triptych.names import STAGES, Names
from triptych_export.repository import replacement

MODELS = Path(__file__).parents[2] / "model_repository"

UNET = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        time.sleep(0.01)
        embeds, sample = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("encoder_hidden_states", "sample")
        )
        output = np.tanh(sample)
        MORE
        return pb_utils.InferenceResponse([pb_utils.Tensor("out_sample", output)])
"""
"""A UNet that takes 10 ms for any number of rows."""


def linked(folder: Path, repository: Path, *models: str) -> Path:
    """`folder`, made, with those models of a repository; all of them if none is named."""
    folder.mkdir()
    for model in models or (path.parent.name for path in repository.glob("*/config.pbtxt")):
        (folder / model).symlink_to(repository / model)
    return folder


def own(folder: Path, model: str) -> Path:
    """The model's folder in a linked repository, as a copy that can be changed, without LoRAs."""
    path = folder / model
    original = path.resolve()
    path.unlink()
    shutil.copytree(original, path, ignore=shutil.ignore_patterns("__pycache__", "loras"))
    for code in path.glob("1/model.py"):
        # It finds the checkout from its own place otherwise.
        text = code.read_text()
        code.write_text(
            text.replace("Path(__file__).resolve().parents[3]", repr(str(MODELS.parent)))
        )
    return path


def change(path: Path, old: str, new: str) -> None:
    """Put `new` in place of `old`, which must stand in the file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def with_model(folder: Path, name: str) -> Path:
    """`folder`, a linked repository, with the same model once more, under another name."""
    names = Names(name)
    with replacement(folder, MODELS, names=names) as new:
        new.commit()
    for stage in STAGES:
        for file in (MODELS / stage / "1").glob("*"):
            link = folder / names.stage(stage) / "1" / file.name
            if not link.exists():
                link.symlink_to(file)
    return folder


def with_unet(folder: Path, more: str = "") -> Path:
    """Replace the UNet in a linked repository by `UNET`, with more lines in its `answer`."""
    (folder / "unet").unlink()
    (folder / "unet" / "1").mkdir(parents=True)
    text = (MODELS / "unet" / "config.pbtxt").read_text().split("# Latents")[0]
    config = text.replace('backend: "fastdeploy"', 'backend: "python"')
    (folder / "unet" / "config.pbtxt").write_text(config)
    indented = more.strip().replace("\n", "\n        ")
    (folder / "unet" / "1" / "model.py").write_text(UNET.replace("MORE", indented))
    return folder


def link_again(folder: Path, model: str) -> None:
    """Undo `own`."""
    shutil.rmtree(folder / model)
    (folder / model).symlink_to(MODELS / model)
