"""`sd_ensemble` with progress: how far the image is, previews, then the image."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # the checkout, if not installed

from triptych.stages import triton
from triptych.stages.sd_ensemble_stream import StreamStage


class TritonPythonModel:
    def initialize(self, args):
        model = triton.Model(args)
        with model.loading():
            self.stage = StreamStage(model)

    def execute(self, requests):
        return self.stage.execute(requests)

    def finalize(self):
        self.stage.close()
