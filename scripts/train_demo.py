"""Train the demo model from nothing, on pictures that demo/ draws, into a diffusers folder.

    python scripts/train_demo.py --output checkpoints/demo

First the autoencoder, then the text encoder and the UNet together, each for the given minutes. Its
state is kept in OUTPUT/state every two minutes and at the end (--stop-after ends early); the same
command goes on from there, or, where only the rest of OUTPUT was kept, from the averaged weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo import architecture, bpe
from demo.scenes import random_picture
from demo.training import Training, denoising_loss, encode_pictures, pictures_of

LEARNING_RATE_VAE = 6e-4
LEARNING_RATE = 6e-4
DRAWN_AT_ONCE = 5  # batches: to draw takes a few hundred launches, however many pictures
SAVE_EVERY = 120


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("checkpoints/demo"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vae-minutes", type=float, default=4.5)
    parser.add_argument(
        "--minutes", type=float, default=17, help="for the text encoder and the UNet"
    )
    parser.add_argument("--stop-after", type=float, default=math.inf, help="minutes, for this run")
    parser.add_argument(
        "--pictures",
        type=int,
        default=100_000,
        help="pictures whose latents are kept to learn from",
    )
    parser.add_argument("--vae-batch", type=int, default=48)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.deadline = time.time() + 60 * args.stop_after
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    args.dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    if not (args.output / "tokenizer").exists():
        bpe.train(args.output / "tokenizer")

    vae = train_vae(args)
    if time.time() < args.deadline:
        train_unet(args, vae)


def train_vae(args) -> AutoencoderKL:
    folder = args.output / "vae"
    if folder.exists():
        return AutoencoderKL.from_pretrained(folder).to(args.device)
    vae = AutoencoderKL(**architecture.VAE).to(args.device)
    training = Training(
        "autoencoder", [vae], args.vae_minutes, LEARNING_RATE_VAE, args.dtype, args.deadline
    )
    rng = random.Random(args.seed)
    ready: list[torch.Tensor] = []
    training.start()
    while True:
        if not ready:
            scenes = [random_picture(rng) for _ in range(DRAWN_AT_ONCE * args.vae_batch)]
            ready += pictures_of(scenes, args.device).split(args.vae_batch)
        images = ready.pop()
        mean, log_variance = (
            vae.quant_conv(vae.encoder(images.to(args.dtype))).float().chunk(2, dim=1)
        )
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        drawn = vae.decoder(vae.post_quant_conv(latents.to(args.dtype))).float()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        if not training.step(reconstruction_loss(drawn, images) + 2e-4 * divergence):
            break
    training.finish([vae])
    with torch.no_grad():
        images = pictures_of([random_picture(rng) for _ in range(64)], args.device)
        latents = vae.encode(images).latent_dist.mean
        error = (vae.decode(latents).sample.clamp(-1, 1) - images).square().mean((1, 2, 3)) / 4
        print(f"autoencoder: PSNR {(-10 * error.log10()).mean():.1f} dB")
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.save_pretrained(folder)
    return vae


def reconstruction_loss(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the pixels and, for sharp edges, of their differences."""
    error = drawn - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges


def train_unet(args, vae) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(args.output / "tokenizer")
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    kept = args.output / "training.json"
    if kept.exists():
        text_encoder = CLIPTextModel.from_pretrained(args.output / "text_encoder")
        unet = UNet2DConditionModel.from_pretrained(args.output / "unet")
    else:
        config = CLIPTextConfig(vocab_size=len(tokenizer), **special, **architecture.TEXT_ENCODER)
        text_encoder, unet = CLIPTextModel(config), UNet2DConditionModel(**architecture.UNET)
    networks = text_encoder.float(), unet.float()
    for network in networks:
        network.to(args.device)
    training = Training("UNet", networks, args.minutes, LEARNING_RATE, args.dtype, args.deadline)
    pictures, progress = (
        args.output / "state" / "pictures.pt",
        args.output / "state" / "training.pt",
    )
    if not pictures.exists():
        save(encode_pictures(vae, tokenizer, args.pictures, args.seed + 1, args.dtype), pictures)
    examples = torch.load(pictures, map_location=args.device)
    if progress.exists():
        training.restore(torch.load(progress, map_location=args.device))
    elif kept.exists():
        training.spent = json.loads(kept.read_text())["spent"]

    scheduler = DPMSolverMultistepScheduler.from_config(architecture.SCHEDULER)
    alphas = scheduler.alphas_cumprod.to(args.device)
    denoise = torch.compile(unet) if args.device == "cuda" else unet
    training.start()
    saved = time.time()
    while not training.finished:
        loss = denoising_loss(denoise, text_encoder, examples, alphas, args.batch)
        if not training.step(loss):
            break
        if time.time() > saved + SAVE_EVERY:
            save(training.state(), progress)
            saved = time.time()
    save(training.state(), progress)
    training.finish(networks)
    kept.write_text(json.dumps({"spent": training.spent}) + "\n")
    save_pipeline(args.output, vae, text_encoder, tokenizer, unet, scheduler)


def save(state, file: Path) -> None:
    """Whole or not at all: written aside, then renamed."""
    file.parent.mkdir(exist_ok=True)
    torch.save(state, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


def save_pipeline(output: Path, vae, text_encoder, tokenizer, unet, scheduler) -> None:
    """Everything in diffusers' layout, weights in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to("cpu", torch.float16)
    pipeline.save_pretrained(output, safe_serialization=True)
    file = output / "scheduler" / "scheduler_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), **architecture.SCHEDULER}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
