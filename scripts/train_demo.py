"""Train the demo model from nothing, on pictures that demo/ draws; writes a folder in diffusers' layout.

    python scripts/train_demo.py --output checkpoints/demo

First the autoencoder, then the text encoder and the UNet together, each for the given minutes. With
--stop-after it stops early and keeps its state in OUTPUT/state; the same command goes on from there.
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
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo import architecture, bpe
from demo.draw import draw
from demo.scenes import Landscape, caption, random_picture

LEARNING_RATE_VAE = 6e-4
LEARNING_RATE = 8e-4
EMA_DECAY = 0.999
UNCONDITIONAL = 0.1
CAPTIONS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("checkpoints/demo"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vae-minutes", type=float, default=4)
    parser.add_argument("--minutes", type=float, default=15, help="for the text encoder and the UNet")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="minutes, for this run")
    parser.add_argument("--pictures", type=int, default=200_000, help="pictures whose latents are kept to learn from")
    parser.add_argument("--vae-batch", type=int, default=48)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.deadline = time.time() + 60 * args.stop_after
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    args.state = args.output / "state"
    args.state.mkdir(parents=True, exist_ok=True)
    if not (args.output / "tokenizer").exists():
        bpe.train(args.output / "tokenizer")

    vae = train_vae(args)
    if time.time() < args.deadline:
        train_unet(args, vae)


class Progress:
    """Counts the time spent over several runs; the learning rate follows it: short warm-up, cosine to zero."""

    def __init__(self, name: str, minutes: float, rate: float, optimizer, args):
        self.name, self.total, self.rate, self.optimizer = name, 60 * minutes, rate, optimizer
        self.deadline, self.spent, self.step, self.since = args.deadline, 0.0, 0, time.time()
        self.losses = []

    def tick(self, loss: torch.Tensor) -> bool:
        """After a step: sets the next rate; False when the time is up."""
        now = time.time()
        self.spent, self.since, self.step = self.spent + now - self.since, now, self.step + 1
        done = min(1.0, self.spent / self.total)
        warm = min(1.0, self.step / 200)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * warm * 0.5 * (1 + math.cos(math.pi * done))
        self.losses.append(loss.detach())
        if self.step % 250 == 0:
            mean = torch.stack(self.losses).mean().item()
            self.losses.clear()
            print(f"{self.name}: step {self.step}, {self.spent:.0f} s of {self.total:.0f}, loss {mean:.4f}", flush=True)
        return not self.finished and now < self.deadline

    @property
    def finished(self) -> bool:
        return self.spent >= self.total


def pictures_of(scenes, device) -> torch.Tensor:
    """The scenes drawn, in their order: [N, 3, H, W] in -1..1."""
    images = torch.empty(len(scenes), 3, architecture.PICTURE_SIZE, architecture.PICTURE_SIZE, device=device)
    for kind in (True, False):
        chosen = [i for i, scene in enumerate(scenes) if isinstance(scene, Landscape) == kind]
        if chosen:
            images[chosen] = draw([scenes[i] for i in chosen], architecture.PICTURE_SIZE, torch, device=device)
    return images * 2 - 1


def train_vae(args) -> AutoencoderKL:
    folder = args.output / "vae"
    if folder.exists():
        return AutoencoderKL.from_pretrained(folder).to(args.device)
    vae = AutoencoderKL(**architecture.VAE).to(args.device, memory_format=torch.channels_last)
    encoder, decoder = torch.compile(vae.encoder), torch.compile(vae.decoder)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=0, betas=(0.9, 0.99), weight_decay=0.01)
    progress = Progress("autoencoder", args.vae_minutes, LEARNING_RATE_VAE, optimizer, args)
    rng = random.Random(args.seed)
    while True:
        images = pictures_of([random_picture(rng) for _ in range(args.vae_batch)], args.device)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            mean, log_variance = vae.quant_conv(encoder(images)).float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-30, 20)
            latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            drawn = decoder(vae.post_quant_conv(latents)).float()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        loss = reconstruction_loss(drawn, images) + 2e-4 * divergence
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if not progress.tick(loss):
            break
    with torch.no_grad():
        images = pictures_of([random_picture(rng) for _ in range(64)], args.device)
        latents = vae.encode(images).latent_dist.mean
        error = (vae.decode(latents).sample.clamp(-1, 1) - images).square().mean((1, 2, 3)) / 4
        print(f"autoencoder: PSNR {(-10 * error.log10()).mean():.1f} dB, latents' deviation {latents.std():.3f}")
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.save_pretrained(folder)
    return vae


def reconstruction_loss(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the pixels and of their differences to the right and below (sharp edges)."""
    error = drawn - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges


@torch.no_grad()
def encode_pictures(args, vae, tokenizer, seed: int):
    """Latents [N, 4, 32, 32] of fresh pictures (half precision) and captions' tokens [N, CAPTIONS, 77]."""
    rng = random.Random(seed)
    scenes = [random_picture(rng) for _ in range(args.pictures)]
    texts = [caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)]
    tokens = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    encoder = torch.compile(vae.encoder)
    side = architecture.PICTURE_SIZE // 8
    latents = torch.empty(args.pictures, 4, side, side, device=args.device, dtype=torch.float16)
    for start in range(0, args.pictures, 250):
        images = pictures_of(scenes[start : start + 250], args.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            mean = vae.quant_conv(encoder(images)).float().chunk(2, dim=1)[0]
        latents[start : start + 250] = mean * vae.config.scaling_factor
    return latents, tokens.view(args.pictures, CAPTIONS, 77).to(args.device)


def train_unet(args, vae) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(args.output / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **architecture.TEXT_ENCODER,
        )
    ).to(args.device)
    unet = UNet2DConditionModel(**architecture.UNET).to(args.device, memory_format=torch.channels_last)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=0, betas=(0.9, 0.99), weight_decay=0.01, fused=args.device == "cuda")
    progress = Progress("UNet", args.minutes, LEARNING_RATE, optimizer, args)
    kept = args.state / "unet.pt"
    if kept.exists():
        state = torch.load(kept, map_location=args.device)
        for mine, saved in zip((*parameters, *average), state["parameters"]):
            mine.data.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])
        progress.spent, progress.step = state["spent"], state["step"]

    started = time.time()
    latents, tokens = encode_pictures(args, vae, tokenizer, seed=args.seed + 1 + progress.step)
    print(f"UNet: {args.pictures} pictures encoded in {time.time() - started:.0f} s", flush=True)
    scheduler = DPMSolverMultistepScheduler.from_config(architecture.SCHEDULER)
    alphas = scheduler.alphas_cumprod.to(args.device)
    empty = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids[0].to(args.device)
    compiled_unet, compiled_text = torch.compile(unet), torch.compile(text_encoder)
    progress.since = time.time()
    while not progress.finished:
        chosen = torch.randint(args.pictures, (args.batch,), device=args.device)
        wording = torch.randint(CAPTIONS, (args.batch,), device=args.device)
        ids = tokens[chosen, wording]
        ids = torch.where(torch.rand(args.batch, 1, device=args.device) < UNCONDITIONAL, empty, ids)
        clean = latents[chosen].float()
        noise = torch.randn_like(clean)
        timesteps = torch.randint(len(alphas), (args.batch,), device=args.device)
        alpha = alphas[timesteps].sqrt()[:, None, None, None]
        sigma = (1 - alpha**2).sqrt()
        noisy = (alpha * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            hidden = compiled_text(ids).last_hidden_state
            predicted = compiled_unet(noisy, timesteps, hidden).sample.float()
        loss = F.mse_loss(predicted, alpha * noise - sigma * clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, parameters, 1 - min(EMA_DECAY, progress.step / (progress.step + 10)))
        if not progress.tick(loss):
            break
    torch.save(
        {
            "parameters": [p.detach() for p in (*parameters, *average)],
            "optimizer": optimizer.state_dict(),
            "spent": progress.spent,
            "step": progress.step,
        },
        kept,
    )
    for mine, mean in zip(parameters, average):
        mine.data.copy_(mean)
    save_pipeline(args.output, vae, text_encoder, tokenizer, unet, scheduler)


def save_pipeline(output: Path, vae, text_encoder, tokenizer, unet, scheduler) -> None:
    """Everything in diffusers' layout, weights in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).to("cpu", torch.float16)
    pipeline.save_pretrained(output, safe_serialization=True)
    file = output / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **architecture.SCHEDULER}, indent=2) + "\n")


if __name__ == "__main__":
    main()
