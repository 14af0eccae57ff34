import json

import pytest

from triptych.errors import InvalidRequest, ModelFileError
from triptych.model_files import ModelFiles
from triptych.settings import Defaults, Limits, parse

NUMBERS = {
    "height": 256,
    "width": 192,
    "latent_channels": 4,
    "vae_scale_factor": 8,
    "scaling_factor": 0.18215,
    "num_inference_steps": 20,
    "guidance_scale": 5.0,
}
SCHEDULER = {"_class_name": "EulerDiscreteScheduler"}


@pytest.fixture
def folder(tmp_path):
    def write(model_files=NUMBERS, scheduler=SCHEDULER):
        for name, values in (("pipeline", model_files), ("scheduler_config", scheduler)):
            text = values if isinstance(values, str) else json.dumps(values)
            (tmp_path / f"{name}.json").write_text(text)
        return tmp_path

    return write


def test_a_pipeline_gives_requests_their_defaults(folder):
    model_files = ModelFiles.load(folder())
    own = {"_class_name": "EulerDiscreteScheduler"}
    assert model_files.defaults() == Defaults(256, 192, 20, 5.0, "euler", 8, own)
    assert model_files.latent_shape(256, 192) == (4, 32, 24)
    assert model_files.scaling_factor == 0.18215
    assert model_files.shift_factor == 0


def test_what_is_not_said_is_as_in_diffusers(folder):
    model_files = ModelFiles.load(folder({"height": 512, "width": 512}))
    assert (model_files.num_inference_steps, model_files.guidance_scale) == (50, 7.5)


def test_a_side_between_two_latents_is_refused(folder):
    model_files = ModelFiles.load(folder())
    for sides in ((252, 256), (256, 252)):
        with pytest.raises(InvalidRequest, match="got 252; allowed: 248 or 256, the nearest sizes"):
            model_files.latent_shape(*sides)


@pytest.mark.parametrize("name", ["pipeline.json", "scheduler_config.json"])
@pytest.mark.parametrize("text", [None, "", "{", "[]", "3", "[" * 100000, b"\xff"])
def test_a_file_that_cannot_be_read_is_named_with_the_fix(folder, name, text):
    path = folder() / name
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelFileError, match=f"{name}: .*; export the stages again"):
        ModelFiles.load(path.parent)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height", None),
        ("height", 0),
        ("height", 100),
        ("width", "256"),
        ("width", True),
        ("latent_channels", 4.0),
        ("vae_scale_factor", -8),
        ("scaling_factor", 0),
        ("scaling_factor", float("nan")),
        ("num_inference_steps", 2.5),
        ("guidance_scale", [7]),
        ("unheard_of", 1),
        ("scheduler_config", {}),
    ],
)
def test_a_number_that_makes_no_sense_is_named(folder, name, value):
    with pytest.raises(ModelFileError, match=rf"pipeline\.json: .*{name}"):
        ModelFiles.load(folder({**NUMBERS, name: value}))


def test_a_number_that_is_missing_is_named(folder):
    with pytest.raises(ModelFileError, match=r"pipeline\.json: height is missing"):
        ModelFiles.load(folder({"width": 256}))


@pytest.mark.parametrize("scheduler", [{}, {"_class_name": "EDMEulerScheduler"}])
def test_a_scheduler_that_is_not_served_is_named(folder, scheduler):
    with pytest.raises(ModelFileError, match=r"scheduler_config\.json: .*_class_name"):
        ModelFiles.load(folder(scheduler=scheduler))


@pytest.mark.parametrize(
    "rows",
    ["x", [], [[1, 2, 3]] * 4, [[1, 2]] * 5, [[1, 2, "x"]] * 5, [[1, 2, None]] * 5, [1, [2], 3]],
)
def test_colours_of_previews_that_are_no_table_are_named(folder, rows):
    with pytest.raises(ModelFileError, match=r"pipeline\.json: latent_rgb is no table of 5 rows"):
        ModelFiles.load(folder({**NUMBERS, "latent_rgb": rows}))


def test_colours_of_previews_are_optional(folder):
    rows = [[0.1, 0.2, 0.3]] * 5
    assert ModelFiles.load(folder({**NUMBERS, "latent_rgb": rows})).latent_rgb == rows
    assert ModelFiles.load(folder()).latent_rgb is None


@pytest.mark.parametrize(
    ("scheduler", "numbers", "why"),
    [
        ({"algorithm_type": "unheard of"}, {}, r"scheduler_config\.json: algorithm_type"),
        ({"num_train_timesteps": 10}, {}, r"scheduler_config\.json: num_inference_steps: got 20"),
        ({}, {"height": 8192, "width": 8192}, r"pipeline\.json: .*height"),
    ],
)
def test_a_model_that_cannot_serve_a_prompt_alone_does_not_load(folder, scheduler, numbers, why):
    config = {"_class_name": "DPMSolverMultistepScheduler", **scheduler}
    with pytest.raises(ModelFileError, match=why):
        ModelFiles.load(folder({**NUMBERS, **numbers}, config))


def test_limits_widen_to_what_the_model_does_by_itself(folder):
    own = {"height": 1024, "width": 32, "num_inference_steps": 300, "guidance_scale": 60}
    model_files = ModelFiles.load(folder({**NUMBERS, **own}))
    limits = Limits(max_pixels=4096).widened(model_files)
    assert parse(b"a prompt", model_files.defaults(), limits).height == 1024
    assert limits == Limits(300, 60, 1024 * 32, 32, limits.max_prompt_bytes)
    assert Limits().widened(ModelFiles.load(folder(NUMBERS))) == Limits()
