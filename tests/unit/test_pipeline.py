"""The pipeline in one process, over the repository that is served."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from triptych.cli import main
from triptych.errors import InvalidRequest
from triptych.picture.metadata import read_settings
from triptych.pipeline import Pipeline

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(REPOSITORY)


def asked(**settings):
    return json.dumps({"prompt": "a red circle", "height": 64, "width": 96, **settings})


def test_a_picture_carries_its_settings_and_does_not_depend_on_its_company(pipeline):
    short = asked(seed=3, num_inference_steps=2)
    one, other = pipeline.draw(short, asked(seed=4, num_inference_steps=3))
    assert read_settings(one).seed == 3
    assert Image.open(io.BytesIO(other)).size == (96, 64)
    assert pipeline.draw(short) == [one]
    assert np.array_equal(pipeline.pixels(short), np.asarray(Image.open(io.BytesIO(one))))


def test_deep_features_change_no_other_picture_and_are_freed_at_the_end(pipeline):
    first, second = (asked(seed=5, num_inference_steps=4, cache_interval=n) for n in (2, 3))
    one, other = pipeline.draw(first, second)
    assert one != other
    assert pipeline.draw(first) == [one]
    assert pipeline._features.bytes == 0


def test_a_request_that_cannot_be_served_is_refused(pipeline):
    with pytest.raises(InvalidRequest, match="width: got 100"):
        pipeline.draw(asked(width=100))


def test_the_command_writes_a_picture_or_says_why_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY.parent)
    file = tmp_path / "a.png"
    size = ["--height", "64", "--width", "64", "--steps", "2", "--seed", "5"]
    assert main(["draw", "a red circle", "-o", str(file), *size]) == 0
    assert read_settings(file.read_bytes()).seed == 5
    assert capsys.readouterr().err == ""
    assert main(["draw", "a red circle " * 40, "-o", str(file), *size]) == 0
    (warning,) = read_settings(file.read_bytes()).warnings
    assert warning.startswith("prompt is longer than 77 tokens; cut off: 'a red circle")
    assert capsys.readouterr().err == f"warning: {warning}\n"
    assert main(["draw", "x", "--width", "100"]) == 1
    assert "width: got 100" in capsys.readouterr().err
    assert main(["draw", "x", "--model-repository", str(tmp_path)]) == 1
    assert "no such file" in capsys.readouterr().err
