"""optimum-intel's OpenVINO pipeline with a model repository's weights, for benchmarks/cpu.py.

`python benchmarks/optimum_pipeline.py REPOSITORY PRECISION`, bf16 or f32, in .venv-peers.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openvino
from optimum.intel import OVStableDiffusionPipeline
from optimum.intel.version import __version__

from benchmarks.diffusers_pipeline import picture
from benchmarks.worker import serve, timed
from triptych_export.rebuild import rebuild

if __name__ == "__main__":
    asked = {"INFERENCE_PRECISION_HINT": sys.argv[2]}
    with tempfile.TemporaryDirectory() as folder:
        rebuild(Path(sys.argv[1]), Path(folder))
        drawer = OVStableDiffusionPipeline.from_pretrained(folder, export=True, ov_config=asked)
    drawer.set_progress_bar_config(disable=True)
    draw = partial(picture, drawer, None)
    serve(
        picture=partial(timed, draw),
        drawn=lambda request: draw(request).decode(),
        versions=lambda: f"optimum-intel {__version__}, OpenVINO {openvino.__version__}",
    )
