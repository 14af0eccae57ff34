"""The scheduler's configuration that an export writes is the one of diffusers' pipeline."""

import inspect

import diffusers
import pytest

from triptych import schedulers
from triptych_export.scheduler_file import as_in_pipeline

PIPELINES = {
    (False, False): diffusers.StableDiffusionPipeline,
    (False, True): diffusers.StableDiffusionInpaintPipeline,
    (True, False): diffusers.StableDiffusionXLPipeline,
    (True, True): diffusers.StableDiffusionXLInpaintPipeline,
}
"""By whether a model is of SDXL's kind, and whether its UNet was made to paint in pictures."""


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"steps_offset": 0, "clip_sample": True, "skip_prk_steps": False},
        {"steps_offset": 1, "clip_sample": False, "skip_prk_steps": True},
    ],
    ids=["nothing", "old", "new"],
)
@pytest.mark.parametrize("name", sorted({entry.diffusers for entry in schedulers.TABLE}))
@pytest.mark.parametrize(("sdxl", "paints_in"), PIPELINES)
def test_old_files_are_read_as_the_pipeline_reads_them(name, said, sdxl, paints_in):
    kind = getattr(diffusers, name)
    pipeline = PIPELINES[sdxl, paints_in]
    parts = dict.fromkeys(inspect.signature(pipeline).parameters)
    parts.update(scheduler=kind.from_config(said))
    parts.update(
        dict.fromkeys({"requires_safety_checker", "add_watermarker"} & parts.keys(), False)
    )
    used = pipeline(**parts).scheduler.config
    written = kind.from_config(as_in_pipeline({"_class_name": name, **said}, sdxl, paints_in))
    for option in used.keys() & {"steps_offset", "clip_sample", "skip_prk_steps"}:
        assert written.config[option] == used[option], option
