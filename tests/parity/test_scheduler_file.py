"""The scheduler's configuration that an export writes is the one of diffusers' pipeline."""

import diffusers
import pytest

from triptych import schedulers
from triptych_export.scheduler_file import as_in_pipeline


@pytest.mark.parametrize(
    "said",
    [{}, {"steps_offset": 0, "clip_sample": True}, {"steps_offset": 1, "clip_sample": False}],
    ids=["nothing", "old", "new"],
)
@pytest.mark.parametrize("name", sorted({entry.diffusers for entry in schedulers.TABLE}))
def test_old_files_are_read_as_the_pipeline_reads_them(name, said):
    scheduler = getattr(diffusers, name).from_config(said)
    none = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "unet", "safety_checker", "feature_extractor")
    )
    pipeline = diffusers.StableDiffusionPipeline(
        **none, scheduler=scheduler, requires_safety_checker=False
    )
    used = pipeline.scheduler.config
    written = as_in_pipeline({"_class_name": name, **said})
    assert written["steps_offset"] == used.get("steps_offset", 1)
    assert written.get("clip_sample", False) == used.get("clip_sample", False)
