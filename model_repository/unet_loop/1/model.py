"""Embeddings and settings to latents: the denoising loop over the model `unet`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the checkout, if not installed

from triptych.stages import triton
from triptych.stages.unet_loop import LoopStage


class TritonPythonModel:
    def initialize(self, args):
        model = triton.Model(args)
        with model.loading():
            self.stage = LoopStage(model)

    def execute(self, requests):
        return self.stage.execute(requests)

    def finalize(self):
        self.stage.close()
        del self.stage  # with its metrics, which Triton takes back only now
