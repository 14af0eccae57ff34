"""INPUT_0 to tokens and settings."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the checkout, if not installed

from triptych.stages import triton
from triptych.stages.tokenizer import TokenizerStage


class TritonPythonModel:
    def initialize(self, args):
        model = triton.Model(args)
        with model.loading():
            self.stage = TokenizerStage(model)

    def execute(self, requests):
        return self.stage.execute(requests)
