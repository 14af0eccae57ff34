"""Train the demo model from nothing, on pictures that demo/ draws, into a diffusers folder.

    python scripts/train_demo.py --output checkpoints/demo

First the autoencoder, then the text encoder and the UNet together, each for the given minutes. Its
state is kept in OUTPUT/state every two minutes and at the end (--stop-after ends early); the same
command goes on from there, or, where only the rest of OUTPUT was kept, from the averaged weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo import architecture, bpe
from demo.draw import draw
from demo.scenes import Landscape, caption, random_picture

LEARNING_RATE_VAE = 6e-4
LEARNING_RATE = 6e-4
EMA_DECAY = 0.999
UNCONDITIONAL = 0.1
CAPTIONS = 2
TRACES = 1 / 3
TRACES_FROM = 750
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


class Training:
    """AdamW over float32 copies of the weights of networks that run in bfloat16 (on a GPU).

    Keeps a moving average of the weights and counts the time spent, over several runs; the learning
    rate follows the time: a short warm-up, then a cosine down to zero.
    """

    def __init__(self, name: str, networks, minutes: float, rate: float, args):
        self.name, self.total, self.rate, self.deadline = name, 60 * minutes, rate, args.deadline
        self.running = [p for network in networks for p in network.parameters()]
        self.weights = [p.detach().clone() for p in self.running]
        self.average = [w.clone() for w in self.weights]
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight)
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=0, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.spent, self.steps, self.losses = 0.0, 0, []
        for network in networks:
            network.to(args.dtype)

    def start(self) -> None:
        self.since = time.time()

    def step(self, loss: torch.Tensor) -> bool:
        """One update; False when the time is up."""
        loss.backward()
        torch._foreach_copy_([w.grad for w in self.weights], [p.grad for p in self.running])
        for running in self.running:
            running.grad = None
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        torch._foreach_copy_([p.data for p in self.running], self.weights)
        torch._foreach_lerp_(
            self.average, self.weights, 1 - min(EMA_DECAY, self.steps / (self.steps + 10))
        )
        self.losses.append(loss.detach())
        if len(self.losses) == 100:
            mean = torch.stack(self.losses).mean().item()
            self.losses.clear()
            print(
                f"{self.name}: step {self.steps + 1}, {self.spent:.0f} s, loss {mean:.4f}",
                flush=True,
            )
        now = time.time()
        self.spent, self.since, self.steps = self.spent + now - self.since, now, self.steps + 1
        rate = (
            self.rate
            * min(1.0, self.steps / 200)
            * 0.5
            * (1 + math.cos(math.pi * min(1.0, self.spent / self.total)))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return not self.finished and now < self.deadline

    @property
    def finished(self) -> bool:
        return self.spent >= self.total

    def state(self) -> dict:
        kept = {name: getattr(self, name) for name in ("weights", "average", "spent", "steps")}
        return {**kept, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict) -> None:
        for name in ("weights", "average"):
            torch._foreach_copy_(getattr(self, name), state[name])
        torch._foreach_copy_([p.data for p in self.running], self.weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.spent, self.steps = state["spent"], state["steps"]

    def finish(self, networks) -> None:
        """Gives the networks the averaged weights, in float32."""
        for network in networks:
            network.float()
        for running, mean in zip(self.running, self.average):
            running.data = mean


def pictures_of(scenes, device) -> torch.Tensor:
    """The scenes drawn, in their order: [N, 3, H, W] in -1..1."""
    images = torch.empty(
        len(scenes), 3, architecture.PICTURE_SIZE, architecture.PICTURE_SIZE, device=device
    )
    for kind in (True, False):
        chosen = [i for i, scene in enumerate(scenes) if isinstance(scene, Landscape) == kind]
        if chosen:
            images[chosen] = draw(
                [scenes[i] for i in chosen], architecture.PICTURE_SIZE, torch, device=device
            )
    return images * 2 - 1


def train_vae(args) -> AutoencoderKL:
    folder = args.output / "vae"
    if folder.exists():
        return AutoencoderKL.from_pretrained(folder).to(args.device)
    vae = AutoencoderKL(**architecture.VAE).to(args.device)
    training = Training("autoencoder", [vae], args.vae_minutes, LEARNING_RATE_VAE, args)
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


@torch.no_grad()
def encode_pictures(args, vae, tokenizer):
    """Latents [N, 4, 32, 32] of new pictures (float16), captions' tokens [N, CAPTIONS, 77]."""
    started, rng = time.time(), random.Random(args.seed + 1)
    scenes = [random_picture(rng) for _ in range(args.pictures)]
    texts = [caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)]
    tokens = tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    encoder, side = copy.deepcopy(vae.encoder).to(args.dtype), architecture.PICTURE_SIZE // 8
    latents = torch.empty(args.pictures, 4, side, side, device=args.device, dtype=torch.float16)
    for start in range(0, args.pictures, 250):
        images = pictures_of(scenes[start : start + 250], args.device).to(args.dtype)
        mean = vae.quant_conv(encoder(images).float()).chunk(2, dim=1)[0]
        latents[start : start + 250] = mean * vae.config.scaling_factor
    print(f"{args.pictures} pictures encoded in {time.time() - started:.0f} s", flush=True)
    return latents, tokens.view(args.pictures, CAPTIONS, 77).to(args.device)


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
    training = Training("UNet", networks, args.minutes, LEARNING_RATE, args)
    pictures, progress = (
        args.output / "state" / "pictures.pt",
        args.output / "state" / "training.pt",
    )
    if not pictures.exists():
        save(encode_pictures(args, vae, tokenizer), pictures)
    latents, tokens = torch.load(pictures, map_location=args.device)
    if progress.exists():
        training.restore(torch.load(progress, map_location=args.device))
    elif kept.exists():
        training.spent = json.loads(kept.read_text())["spent"]

    scheduler = DPMSolverMultistepScheduler.from_config(architecture.SCHEDULER)
    alphas = scheduler.alphas_cumprod.to(args.device)
    empty = (
        tokenizer("", padding="max_length", max_length=77, return_tensors="pt")
        .input_ids[0]
        .to(args.device)
    )
    denoise = torch.compile(unet) if args.device == "cuda" else unet
    training.start()
    saved = time.time()
    while not training.finished:
        chosen = torch.randint(len(latents), (args.batch,), device=args.device)
        ids = tokens[chosen, torch.randint(CAPTIONS, (args.batch,), device=args.device)]
        ids = torch.where(torch.rand(args.batch, 1, device=args.device) < UNCONDITIONAL, empty, ids)
        clean = latents[chosen].float()
        timesteps = torch.randint(len(alphas), (args.batch,), device=args.device)
        alpha = alphas[timesteps].sqrt()[:, None, None, None]
        sigma = (1 - alpha**2).sqrt()
        noise = torch.randn_like(clean) + traces(clean, timesteps, alphas)
        hidden = text_encoder(ids).last_hidden_state
        predicted = denoise(
            (alpha * clean + sigma * noise).to(args.dtype), timesteps, hidden
        ).sample.float()
        if not training.step(F.mse_loss(predicted, alpha * noise - sigma * clean)):
            break
        if time.time() > saved + SAVE_EVERY:
            save(training.state(), progress)
            saved = time.time()
    save(training.state(), progress)
    training.finish(networks)
    kept.write_text(json.dumps({"spent": training.spent}) + "\n")
    save_pipeline(args.output, vae, text_encoder, tokenizer, unet, scheduler)


def traces(clean, timesteps, alphas) -> torch.Tensor:
    """What noise of some images has beside randomness, so that a caption counts more than it.

    At the last timestep of this schedule 7 % of an image's amplitude is left, enough to tell its
    background. A drawn image begins with noise that has no such trace, or with the noised latents
    of another picture, and keeps that trace while it is denoised: at timestep s it was
    `alpha_s other + sigma_s noise`, which is `alpha_s clean + sigma_s (noise + trace)`. Here one
    image in three does so, with an s at random; half of these begin with no other picture.
    Plain offset noise (https://www.crosslabs.org/blog/diffusion-with-offset-noise) does it for
    the mean alone.

    clean and the result are [N, 4, H, W]; timesteps [N]; alphas the schedule's alphas_cumprod.
    """
    count, device = len(clean), clean.device
    others = clean[torch.randperm(count, device=device)]
    others = others * (torch.rand(count, 1, 1, 1, device=device) < 0.5)
    first = timesteps.clamp(min=TRACES_FROM)
    began = first + (torch.rand(count, device=device) * (len(alphas) - first)).long()
    kept = (alphas[began] / (1 - alphas[began])).sqrt()
    kept = kept * (torch.rand(count, device=device) < TRACES)
    return kept[:, None, None, None] * (others - clean)


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
