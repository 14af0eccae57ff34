"""A decoded picture and its settings to OUTPUT_0."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the checkout, if not installed

from triptych.stages import triton
from triptych.stages.image_encoder import ImageEncoderStage


class TritonPythonModel:
    def initialize(self, args):
        model = triton.Model(args)
        with model.loading():
            self.stage = ImageEncoderStage(model)

    def execute(self, requests):
        return self.stage.execute(requests)
