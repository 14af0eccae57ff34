"""Triton's `fastdeploy` backend where FastDeploy is not installed: ONNX Runtime for its models."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout, if not installed

from triptych import triton
from triptych.fastdeploy.network import Network


class TritonPythonModel:
    def initialize(self, args):
        self.model = triton.Model(args)
        with self.model.loading():
            self.network = Network(self.model.folder, self.model.config, self.model.device)
        triton.log(f"{self.model.name}: runs on {self.network.provider}")

    def execute(self, requests):
        return self.model.answer_together(requests, self.network.run)
