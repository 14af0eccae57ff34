"""What the demo model and its LoRA are trained with: the optimizer, drawn pictures, the loss."""

from __future__ import annotations

import copy
import math
import random
import time

import torch
import torch.nn.functional as F

from demo import architecture
from demo.draw import draw
from demo.scenes import Landscape, caption, random_picture

EMA_DECAY = 0.999
UNCONDITIONAL = 0.1
CAPTIONS = 2
TRACES = 1 / 3
TRACES_FROM = 750


class Training:
    """AdamW over float32 copies of the weights of networks that run in bfloat16 (on a GPU).

    Keeps a moving average of the weights and counts the time spent, over several runs; the learning
    rate follows the time: a short warm-up, then a cosine down to zero.
    """

    def __init__(
        self, name: str, networks, minutes: float, rate: float, dtype, deadline: float = math.inf
    ):
        self.name, self.total, self.rate, self.deadline = name, 60 * minutes, rate, deadline
        parameters = (p for network in networks for p in network.parameters())
        self.running = [p for p in parameters if p.requires_grad]
        self.weights = [p.detach().clone() for p in self.running]
        self.average = [w.clone() for w in self.weights]
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight)
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=0, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.spent, self.steps, self.losses = 0.0, 0, []
        for network in networks:
            network.to(dtype)

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


def pictures_of(scenes, device, line: float | None = None) -> torch.Tensor:
    """The scenes drawn, in their order: [N, 3, H, W] in -1..1; `line` as for draw."""
    side = architecture.PICTURE_SIZE
    images = torch.empty(len(scenes), 3, side, side, device=device)
    for kind in (True, False):
        chosen = [i for i, scene in enumerate(scenes) if isinstance(scene, Landscape) == kind]
        if chosen:
            images[chosen] = draw([scenes[i] for i in chosen], side, torch, line, device=device)
    return images * 2 - 1


@torch.no_grad()
def encode_pictures(vae, tokenizer, count: int, seed: int, dtype, line: float | None = None):
    """New pictures to learn from: latents, their captions' tokens, and those of no caption.

    [N, 4, 32, 32] float16, [N, CAPTIONS, 77] and [77], on the autoencoder's device; `line` as for
    draw.
    """
    started, rng = time.time(), random.Random(seed)
    scenes = [random_picture(rng) for _ in range(count)]
    texts = [caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)]
    tokens = tokenizer(
        ["", *texts], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids.to(vae.device)
    encoder, side = copy.deepcopy(vae.encoder).to(dtype), architecture.PICTURE_SIZE // 8
    latents = torch.empty(count, 4, side, side, device=vae.device, dtype=torch.float16)
    for start in range(0, count, 250):
        images = pictures_of(scenes[start : start + 250], vae.device, line).to(dtype)
        mean = vae.quant_conv(encoder(images).float()).chunk(2, dim=1)[0]
        latents[start : start + 250] = mean * vae.config.scaling_factor
    print(f"{count} pictures encoded in {time.time() - started:.0f} s", flush=True)
    return latents, tokens[1:].view(count, CAPTIONS, 77), tokens[0]


def denoising_loss(denoise, text_encoder, pictures, alphas, batch: int) -> torch.Tensor:
    """Mean squared error of `denoise`, a UNet, for v-prediction at timesteps drawn evenly.

    pictures as encode_pictures gives them; alphas the schedule's alphas_cumprod.
    """
    latents, tokens, empty = pictures
    device = latents.device
    chosen = torch.randint(len(latents), (batch,), device=device)
    ids = tokens[chosen, torch.randint(CAPTIONS, (batch,), device=device)]
    ids = torch.where(torch.rand(batch, 1, device=device) < UNCONDITIONAL, empty, ids)
    clean = latents[chosen].float()
    timesteps = torch.randint(len(alphas), (batch,), device=device)
    alpha = alphas[timesteps].sqrt()[:, None, None, None]
    sigma = (1 - alpha**2).sqrt()
    noise = torch.randn_like(clean) + traces(clean, timesteps, alphas)
    hidden = text_encoder(ids).last_hidden_state
    noisy = (alpha * clean + sigma * noise).to(hidden.dtype)
    predicted = denoise(noisy, timesteps, hidden).sample.float()
    return F.mse_loss(predicted, alpha * noise - sigma * clean)


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
