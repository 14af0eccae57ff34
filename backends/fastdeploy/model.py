"""Triton's `fastdeploy` backend where FastDeploy is not installed: ONNX Runtime for its models."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout, if not installed

from triptych.stages import triton
from triptych.stages.network import ServedNetwork


class TritonPythonModel:
    def initialize(self, args):
        model = triton.Model(args)
        with model.loading():
            self.network = ServedNetwork(model)

    def execute(self, requests):
        return self.network.execute(requests)

    def finalize(self):
        self.network.close()
