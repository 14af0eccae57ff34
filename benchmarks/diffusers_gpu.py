"""diffusers with a random model as large as Stable Diffusion 1.5, on CUDA in half precision.

    python benchmarks/diffusers_gpu.py REPOSITORY [--pictures N]

A line of JSON for each way: eager, one at a time and in batches; then with the UNet compiled.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import time
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import sd15

BATCH = 8
SETTINGS = {"num_inference_steps": 50, "guidance_scale": 7.5, "height": 512, "width": 512}


def pipeline(repository: Path) -> StableDiffusionPipeline:
    """The layers and widths of Stable Diffusion 1.5; the tokenizer is the repository's."""
    scheduler = json.loads((repository / "unet_loop" / "1" / "scheduler_config.json").read_text())
    torch.manual_seed(0)
    with torch.device("cuda"):
        networks = sd15.networks()
    made = StableDiffusionPipeline(
        **networks,
        tokenizer=CLIPTokenizer.from_pretrained(repository / "tokenizer" / "1"),
        scheduler=DDIMScheduler.from_config(scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.to("cuda", torch.float16)
    made.set_progress_bar_config(disable=True)
    return made


def draw(drawer: StableDiffusionPipeline, count: int) -> float:
    """Seconds from `count` prompts to the base64 of as many PNGs."""
    begun = time.perf_counter()
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(count)]
    prompts = [f"a red circle, number {seed}" for seed in range(count)]
    for picture in drawer(prompts, generator=generators, **SETTINGS).images:
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        base64.b64encode(file.getvalue())
    return time.perf_counter() - begun


def tell(way: str, batch: int, taken: list[float], **more: object) -> None:
    print(json.dumps({"way": way, "batch": batch, "seconds": taken, **more}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--pictures", type=int, default=6)
    options = parser.parse_args()
    drawer = pipeline(options.repository)
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    draw(drawer, 1)
    taken = [draw(drawer, 1) for _ in range(options.pictures)]
    tell("eager", 1, taken, versions=versions)
    draw(drawer, BATCH)
    tell("eager", BATCH, [draw(drawer, BATCH) for _ in range(2)])
    drawer.unet = torch.compile(drawer.unet, mode="reduce-overhead", fullgraph=True)
    loading = draw(drawer, 1)
    draw(drawer, 1)
    taken = [draw(drawer, 1) for _ in range(options.pictures)]
    tell("compiled", 1, taken, loading=loading)
    return 0


if __name__ == "__main__":
    sys.exit(main())
