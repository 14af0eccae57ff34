"""The scheduler's configuration that an export writes is the one of diffusers' pipeline."""

import inspect
import json

import diffusers
import pytest
from diffusers import DiffusionPipeline
from random_models import write_model

from triptych import schedulers
from triptych_export.cli import CHECKOUT
from triptych_export.families import PIPELINES, SDXL_PIPELINES
from triptych_export.repository import replacement
from triptych_export.scheduler_file import as_in_pipeline
from triptych_export.service_files import write_service_files
from triptych_export.source import open_source, pipeline_numbers

OLD = {"steps_offset": 0, "clip_sample": True, "skip_prk_steps": False}
KNOWN = [name for name in (*PIPELINES, *SDXL_PIPELINES) if hasattr(diffusers, name)]
"""Those of ppdiffusers, FastDeploy's, are not installed here."""


@pytest.mark.parametrize(
    "said",
    [
        {},
        OLD,
        {"steps_offset": 1, "clip_sample": False, "skip_prk_steps": True},
    ],
    ids=["nothing", "old", "new"],
)
@pytest.mark.parametrize("name", sorted({entry.diffusers for entry in schedulers.TABLE}))
@pytest.mark.parametrize("pipeline", KNOWN)
def test_old_files_are_read_as_the_pipeline_reads_them(name, said, pipeline):
    kind = getattr(diffusers, name)
    theirs = getattr(diffusers, pipeline)
    parts = dict.fromkeys(inspect.signature(theirs).parameters)
    parts.update(scheduler=kind.from_config(said))
    parts.update(
        dict.fromkeys({"requires_safety_checker", "add_watermarker"} & parts.keys(), False)
    )
    used = theirs(**parts).scheduler.config
    written = kind.from_config(as_in_pipeline({"_class_name": name, **said}, pipeline))
    for option in used.keys() & {"steps_offset", "clip_sample", "skip_prk_steps"}:
        assert written.config[option] == used[option], option


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), time_cond_proj_dim=32)


@pytest.mark.parametrize("scheduler", ["LCMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize(
    "pipeline",
    [
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
    ],
)
def test_what_is_written_of_a_folder_is_what_its_pipeline_has(model, tmp_path, pipeline, scheduler):
    for path, changes in (
        ("model_index.json", {"_class_name": pipeline, "scheduler": ["diffusers", scheduler]}),
        ("scheduler/scheduler_config.json", {"_class_name": scheduler, **OLD}),
    ):
        content = json.loads((model / path).read_text())
        (model / path).write_text(json.dumps({**content, **changes}))
    theirs = DiffusionPipeline.from_pretrained(model)
    assert type(theirs).__name__ == pipeline
    source, served = open_source(model), tmp_path / "served"
    with replacement(served, CHECKOUT / "model_repository") as new:
        write_service_files(source, pipeline_numbers(source), new)
        new.commit()
    written = json.loads((served / "unet_loop/1/scheduler_config.json").read_text())
    assert theirs.scheduler.from_config(written).config == theirs.scheduler.config
