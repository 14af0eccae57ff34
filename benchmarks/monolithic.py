"""The same work in one process: triptych.pipeline, no server.

ONNX Runtime as it comes, one request at a time or several that share the calls of the UNet.
As a script, `python benchmarks/monolithic.py REPOSITORY` is a worker of benchmarks/cpu.py.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.worker import serve, timed
from triptych.pipeline import Pipeline


class Monolith(Pipeline):
    """The pipeline as the benchmark asks for it."""

    def pictures(self, requests: list[str]) -> list[bytes]:
        """OUTPUT_0 for each INPUT_0."""
        return [base64.b64encode(file) for file in self.draw(*requests)]

    def unet_seconds(self, rows: int, runs: int) -> list[float]:
        """How long each of `runs` runs of the UNet alone takes, with that many rows."""
        shape = self.model_files.latent_shape(self.model_files.height, self.model_files.width)
        embeds, _ = self.embeds(self.request('{"prompt": ""}').settings)
        arguments = {
            "sample": np.ones((rows, *shape), np.float32),
            "timestep": np.ones(rows, np.float32),
            "conditioning": {"encoder_hidden_states": np.stack([embeds] * rows)},
        }
        return [timed(self.unet, **arguments) for _ in range(runs)]


if __name__ == "__main__":
    monolith = Monolith(sys.argv[1])
    serve(
        pictures=lambda requests: timed(monolith.pictures, requests),
        digest=lambda request: hashlib.sha256(*monolith.pictures([request])).hexdigest(),
        unet_seconds=monolith.unet_seconds,
    )
