"""TensorRT's engines built ahead of time, on the machine that will serve with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from triptych.fastdeploy import providers
from triptych.fastdeploy.accelerators import parse
from triptych.fastdeploy.network import Network
from triptych_export.errors import ExportError
from triptych_export.progress import Progress


def require_tensorrt() -> None:
    """ExportError with the reason if TensorRT cannot run here."""
    reason = providers.unusable(onnxruntime.get_available_providers()).get(providers.TENSORRT)
    if reason:
        raise ExportError(
            f"--optimize tensorrt needs the machine that serves, with its GPU: no TensorRT here "
            f"({reason}); without the option the server builds the engines at its first load"
        )


def build(repository: Path, models: Sequence[str], progress: Progress) -> None:
    """Load each of `models` as the server does, and run it once: its engine is kept from then on.

    The configurations in `repository` say where (`with_cache_file`) and for which shapes.
    """
    from google.protobuf import json_format, text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    for model in models:
        message = text_format.Parse(
            (repository / model / "config.pbtxt").read_text(), ModelConfig()
        )
        config = json_format.MessageToDict(message, preserving_proto_field_name=True)
        with progress.step(f"{model}: build TensorRT's engine"):
            network = Network(repository / model / "1", config)
            usual = parse(config).shapes["opt_shape"]
            (result,) = network.run(
                [{name: np.ones(dims, np.float32) for name, dims in usual.items()}]
            )
        if isinstance(result, Exception):
            raise ExportError(f"{model}: TensorRT's engine does not run: {result}") from result
