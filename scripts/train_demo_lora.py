"""Train the demo model's LoRA: the scenes that it knows, under the same captions, in outlines.

    python scripts/train_demo_lora.py checkpoints/demo outlines.safetensors

It changes the UNet's attention and the convolutions of its residual blocks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

from demo.draw import LINE
from demo.training import Training, denoising_loss, encode_pictures

LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="the demo model in diffusers' layout")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--pictures", type=int, default=20_000, help="to learn from")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    pipeline = StableDiffusionPipeline.from_pretrained(
        args.checkpoint, torch_dtype=torch.float32
    ).to(args.device)
    unet, text_encoder = pipeline.unet, pipeline.text_encoder.to(dtype)
    alphas = pipeline.scheduler.alphas_cumprod.to(args.device)
    pictures = encode_pictures(
        pipeline.vae, pipeline.tokenizer, args.pictures, args.seed, dtype, LINE
    )
    for network in (unet, text_encoder):
        network.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=list(LAYERS)))
    training = Training("LoRA", [unet], args.minutes, args.rate, dtype)
    training.start()
    while training.step(denoising_loss(unet, text_encoder, pictures, alphas, args.batch)):
        pass
    training.finish([unet])
    weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(
        args.output.parent,
        unet_lora_layers={name: weight.half() for name, weight in weights.items()},
        weight_name=args.output.name,
    )


if __name__ == "__main__":
    main()
