"""diffusers with a random model of the repository's kind and full size, on CUDA in half precision.

    python benchmarks/diffusers_gpu.py REPOSITORY [--pictures N] [--steps N] [--guidance-scale X]
        [--output-format png]

Of Stable Diffusion 1.5's size, or of SDXL's. A line of JSON for each way: eager, one at a time and
in batches; then with the UNet compiled.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import sd15, sdxl
from triptych.model_files import ModelFiles
from triptych.picture.encode import SAVED
from triptych.settings import OUTPUT_FORMATS

BATCH = 8


def pipeline(
    repository: Path, model_files: ModelFiles
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """Full-size networks; the tokenizer and the scheduler are the repository's."""
    scheduler = json.loads((repository / "unet_loop" / "1" / "scheduler_config.json").read_text())
    torch.manual_seed(0)
    parts = {
        "tokenizer": CLIPTokenizer.from_pretrained(repository / "tokenizer" / "1"),
        "scheduler": DDIMScheduler.from_config(scheduler),
    }
    if model_files.is_sdxl:
        kind, size, parts["tokenizer_2"] = StableDiffusionXLPipeline, sdxl, parts["tokenizer"]
        parts["add_watermarker"] = False
    else:
        kind, size = StableDiffusionPipeline, sd15
        parts.update(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    with torch.device("cuda"):
        networks = size.networks()
    made = kind(**networks, **parts)
    made.to("cuda", torch.float16)
    made.set_progress_bar_config(disable=True)
    if model_files.is_sdxl:
        made.vae.enable_slicing()  # of eight at once one tensor has 2**31 elements
    return made


def draw(drawer: Callable[..., Any], output_format: str, count: int) -> float:
    """Seconds from `count` prompts to the base64 of as many files, written as the server does."""
    saved = SAVED.get(output_format, {"compress_level": 1})
    begun = time.perf_counter()
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(count)]
    prompts = [f"a red circle, number {seed}" for seed in range(count)]
    for picture in drawer(prompts, generator=generators).images:
        file = io.BytesIO()
        picture.save(file, output_format, **saved)
        base64.b64encode(file.getvalue())
    return time.perf_counter() - begun


def tell(way: str, batch: int, taken: list[float], **more: object) -> None:
    print(json.dumps({"way": way, "batch": batch, "seconds": taken, **more}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--output-format", choices=OUTPUT_FORMATS, default=OUTPUT_FORMATS[0])
    options = parser.parse_args()
    model_files = ModelFiles.load(options.repository / "unet_loop" / "1")
    made = pipeline(options.repository, model_files)
    drawer = partial(
        made,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        height=model_files.height,
        width=model_files.width,
    )
    timed = partial(draw, drawer, options.output_format)
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    timed(1)
    taken = [timed(1) for _ in range(options.pictures)]
    tell("eager", 1, taken, versions=versions)
    timed(BATCH)
    tell("eager", BATCH, [timed(BATCH) for _ in range(2)])
    made.unet = torch.compile(made.unet, mode="reduce-overhead", fullgraph=True)
    loading = timed(1)
    timed(1)
    taken = [timed(1) for _ in range(options.pictures)]
    tell("compiled", 1, taken, loading=loading)
    return 0


if __name__ == "__main__":
    sys.exit(main())
