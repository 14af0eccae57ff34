"""A model as FastDeploy's users have it; run in Paddle's environment: SOURCE TARGET (now | early).

now: as ppdiffusers exports it, any size, float timesteps. early: other input names, one size,
whole timesteps. Both have one timestep for all rows, token numbers of 64 bits and a second output.
"""

from __future__ import annotations

import json
import shutil
import sys
import zlib  # noqa: F401  before Paddle, see paddle_road
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import paddle

from triptych_export import paddle_road
from triptych_export.source import open_source
from triptych_export.stages import stages
from triptych_export.tokenizer_files import write_tokenizer


class _WithPooled(paddle.nn.Layer):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids)


class _Mode(paddle.nn.Layer):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        return self.model.encode(sample, True).latent_dist.mode()


def main(folder: Path, target: Path, kind: str) -> None:
    source = open_source(folder)
    target.mkdir()
    loaded = {name: paddle_road._load(stages(source)[name], source, target) for name in PARTS}
    side = None if kind == "now" else 16
    pixels = None if kind == "now" else 128
    spec = paddle.static.InputSpec
    early = {"sample": "latent_input", "encoder_hidden_states": "encoder_embedding"}
    name = {} if kind == "now" else early

    def named(key):
        return name.get(key, key)

    timestep = spec([1], "float32" if kind == "now" else "int64", "timestep")
    latents = [None, 4, side, side]
    embeds = [None, None, source.hidden_size]
    networks = {
        "text_encoder": (
            _WithPooled(loaded["text_encoder"].model),
            [spec([None, None], "int64", "input_ids")],
        ),
        "unet": (
            loaded["unet"],
            [
                spec(latents, "float32", named("sample")),
                timestep,
                spec(embeds, "float32", named("encoder_hidden_states")),
            ],
        ),
        "vae_decoder": (loaded["vae_decoder"], [spec(latents, "float32", "latent_sample")]),
        "vae_encoder": (
            _Mode(loaded["vae_encoder"].model),
            [spec([None, 3, pixels, pixels], "float32", "sample")],
        ),
    }
    for part, (layer, specs) in networks.items():
        layer.eval()
        traced = paddle.jit.to_static(layer, input_spec=specs, full_graph=True)
        paddle.jit.save(traced, str(target / part / "inference"))
    (target / "tokenizer").mkdir()
    write_tokenizer(folder / "tokenizer", target / "tokenizer")
    shutil.copytree(folder / "scheduler", target / "scheduler")
    model = ["ppdiffusers", "FastDeployRuntimeModel"]
    index = {"_class_name": "FastDeployStableDiffusionMegaPipeline", **dict.fromkeys(PARTS, model)}
    (target / "model_index.json").write_text(json.dumps(index))


PARTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
