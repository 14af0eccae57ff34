"""The tokenizer's stage: parameters of Triton's protocol, and which row of a batch is wrong."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pb_utils_fake as fake
import pytest

from triptych.ipc.progress import Record

MODEL = Path(__file__).parents[2] / "model_repository/tokenizer"


@pytest.fixture
def stage(monkeypatch):
    def make(release="24.10", model=MODEL):
        fake.install(monkeypatch, fake.module(release, None))
        triton = importlib.import_module("triptych.stages.triton")
        tokenizer = importlib.import_module("triptych.stages.tokenizer")
        arguments = fake.initialize_args(model, "tokenizer", ("INPUT_0",))
        return tokenizer.TokenizerStage(triton.Model(arguments))

    return make


def request(*texts, kind=fake.Request, **parameters):
    made = kind(INPUT_0=np.array([[text.encode()] for text in texts], dtype=object))
    made.own_parameters = parameters
    return made


def settings(response):
    assert not response.has_error(), response.error().message()
    return [json.loads(text) for text in response.tensors["settings"][:, 0]]


def test_parameters_hold_for_every_row(stage):
    (response,) = stage().execute([request("a fox", "a dog", seed=7, num_inference_steps=2)])
    asked = [(one["prompt"], one["seed"], one["num_inference_steps"]) for one in settings(response)]
    assert asked == [("a fox", 7, 2), ("a dog", 7, 2)]


def test_each_request_has_its_own_parameters(stage):
    first, second = stage().execute([request("x", seed=7), request("x", sed=8)])
    assert settings(first)[0]["seed"] == 7
    assert second.error().code() == fake.Error.INVALID_ARG
    assert (
        second.error().message().startswith("tokenizer: sed: got 8; allowed: only the parameters")
    )


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a fox <lora:style:0.8>, (red:1.3)", ["'<lora:style:0.8>'", "'(red:1.3)'"]),
        ("<lyco:x>", ["'<lyco:x>'"]),
        ("a (red) fox at (10:30), [a:b:0.5], {c|d}, <3", []),
    ],
)
def test_syntax_of_the_webui_that_is_not_read_is_said_in_the_picture(stage, prompt, shown):
    (response,) = stage().execute([request(json.dumps({"prompt": "x", "negative_prompt": prompt}))])
    says = f"negative_prompt: {', '.join(shown)} is read as words: no LoRA, no weights"
    found = [one for one in settings(response)[0]["warnings"] if "does not know" not in one]
    assert found == ([says] if shown else [])


def test_words_that_the_demo_model_does_not_know_are_said_in_the_picture(stage):
    asked = {"prompt": "a photo of a red circle", "negative_prompt": "blurry"}
    (response,) = stage().execute([request(json.dumps(asked), "a red circle")])
    assert [one["warnings"] for one in settings(response)] == [
        [
            "prompt: this model does not know 'photo'",
            "negative_prompt: this model does not know 'blurry'",
        ],
        [],
    ]


def test_the_stream_of_a_traced_request_is_told_that_a_stage_has_it(stage):
    record = Record("sd_ensemble_stream", 0)
    try:
        sent, traced = request("a fox"), request("a fox")
        traced.context = fake.context()
        for one, begun in ((sent, False), (traced, True)):
            one.id = f"order-7:{record.token}"
            settings(*stage().execute([one]))
            assert record.begun() == begun
        traced.id = "of no stream"
        settings(*stage().execute([traced]))
    finally:
        record.close()


def test_a_triton_that_tells_no_parameters_serves_the_text(stage):
    (response,) = stage("21.10").execute(
        [request('{"prompt": "x", "seed": 3}', kind=fake.OldRequest)]
    )
    assert settings(response)[0]["seed"] == 3


def test_a_bad_row_of_a_batch_is_told_by_its_number(stage):
    (response,) = stage().execute([request("x", "y", '{"prompt": "z", "seed": -1}')])
    text = response.error().message()
    assert text.startswith("tokenizer: seed: got -1; allowed: an integer from 0 to ")
    assert text.endswith(" (row 3 of 3)")
    (alone,) = stage().execute([request('{"prompt": "z", "seed": -1}')])
    assert "row" not in alone.error().message()


def test_what_a_request_means_takes_no_place(stage, monkeypatch):
    tokenizer, counted = stage(), []
    monkeypatch.setattr(
        tokenizer._model.activity, "images", lambda **counts: counted.append(counts)
    )
    told, drawn, wrong = tokenizer.execute(
        [request("x", seed=1, list="settings"), request("x", seed=1), request("x", list="all")]
    )
    assert settings(told) == settings(drawn)
    (counts,) = counted
    assert counts.keys() == {"went"}
    assert [json.loads(one) for one in counts["went"]] == settings(drawn)
    assert wrong.error().message() == "tokenizer: list: got 'all'; allowed: loras, settings"


def test_the_loras_that_are_told_are_those_of_the_model_that_is_served(stage, tmp_path):
    for name in ("tokenizer", "unet"):
        shutil.copytree(MODEL.parent / name, tmp_path / name)
    asked = request("", list="loras")
    (told,) = stage(model=tmp_path / "tokenizer").execute([asked])
    assert settings(told) == [["outlines"]]
    config = tmp_path / "unet" / "config.pbtxt"
    config.write_text(config.read_text().replace("77 192", "77 768"))
    (told,) = stage(model=tmp_path / "tokenizer").execute([asked])
    assert settings(told) == [[]]
