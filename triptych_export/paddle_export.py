"""The export through Paddle: native files and ONNX, both compared with ppdiffusers.

Every step runs in a process of its own: the memory that Paddle took is given back.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from triptych_export import check
from triptych_export.apart import run_apart
from triptych_export.errors import ExportError
from triptych_export.progress import Progress
from triptych_export.source import Source
from triptych_export.stages import Stage, examples_to_check

ROAD = "triptych_export.paddle_road"
RUN = "triptych_export.paddle_run"
CONVERT = "triptych_export.paddle_convert"


def no_encoder(source: Source) -> str | None:
    """Why `export_stage` can make no vae_encoder of this model: it always can."""
    return None


def export_stage(
    stage: Stage, source: Source, folder: Path, wanted: check.Wanted, progress: Progress
) -> None:
    """Write `stage` as folder/model.pdmodel, .pdiparams and .onnx; ExportError if one is wrong."""
    if source.paints_in:
        raise ExportError(
            "the UNet takes 9 channels, to paint in pictures: export it with --framework diffusers"
        )
    feeds = examples_to_check(stage, source)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with progress.step(f"{stage.name}: load, run and trace in Paddle"):
            expected = run_apart(ROAD, "trace", stage, source, folder, feeds, log=log)
        with progress.step(f"{stage.name}: compare the Paddle files"):
            outputs = run_apart(RUN, "run_native", folder / "model", feeds, log=log)
            error = check.difference(outputs, expected)
            check.require_close(f"{stage.name} in Paddle", error)
            progress.say(f"{stage.name}: Paddle files: error {error:.1e} of the greatest value")
        with progress.step(f"{stage.name}: convert to ONNX"):
            run_apart(CONVERT, "convert", stage, folder, log=log)
    check.finish_stage(stage, folder, feeds, expected, wanted, progress)


def fetch(name: str, folder: Path) -> Path:
    """Download the model that ppdiffusers knows as `name` into `folder`, which is returned."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run_apart(ROAD, "download", name, folder, log=Path(scratch) / "log")
        except ExportError as error:
            raise ExportError(
                f"{name} is no folder and cannot be downloaded: {error}\nWithout a network, "
                "download it elsewhere and give the folder with its model_index.json"
            ) from error
    return folder
