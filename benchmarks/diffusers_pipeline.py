"""diffusers' pipeline with the weights of a model repository, as a worker of benchmarks/cpu.py.

`python benchmarks/diffusers_pipeline.py REPOSITORY`, in an environment with PyTorch.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.utils import load_image
from PIL import Image

from benchmarks.worker import serve, timed
from triptych_export.rebuild import pipeline


def picture(
    draw: Callable[..., Any], from_picture: Callable[..., Any] | None, request: str
) -> bytes:
    """OUTPUT_0 for an INPUT_0: from the prompt to the base64 of a PNG, as the server does it.

    `draw` and, for requests with a picture, `from_picture` are pipelines of diffusers' interface.
    """
    settings = json.loads(request)
    generator = torch.Generator("cpu").manual_seed(settings.pop("seed"))
    if "image" in settings:
        draw = from_picture
        came = Image.open(io.BytesIO(base64.b64decode(settings["image"])))
        size = settings.pop("width"), settings.pop("height")
        settings["image"] = load_image(came).resize(size, Image.LANCZOS)
    file = io.BytesIO()
    draw(generator=generator, **settings).images[0].save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue())


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    drawer = pipeline(Path(sys.argv[1]))
    drawer.set_progress_bar_config(disable=True)
    from_picture = StableDiffusionImg2ImgPipeline(
        **drawer.components, requires_safety_checker=False
    )
    from_picture.set_progress_bar_config(disable=True)
    serve(
        picture=partial(timed, picture, drawer, from_picture),
        versions=lambda: f"torch {torch.__version__}, diffusers {diffusers.__version__}",
    )
