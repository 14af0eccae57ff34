"""Saved Paddle programs, run by Paddle's own engine on the CPU. Runs in Paddle's environment."""

from __future__ import annotations

import zlib  # noqa: F401  before Paddle, see paddle_road
from pathlib import Path

import numpy as np
import paddle


def predictor(model: Path) -> paddle.inference.Predictor:
    """Paddle's own engine for the program in `model` (a path without its ending), on the CPU."""
    config = paddle.inference.Config(f"{model}.pdmodel", f"{model}.pdiparams")
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(2)
    return paddle.inference.create_predictor(config)


def run_once(engine: paddle.inference.Predictor, call: dict) -> np.ndarray:
    """The first output of `engine` for the inputs in `call`."""
    for name, value in call.items():
        engine.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(value))
    engine.run()
    return engine.get_output_handle(engine.get_output_names()[0]).copy_to_cpu()


def run_native(model: Path, feeds: list[dict]) -> list[np.ndarray]:
    """The first output of the program in `model` (without its ending) for each of `feeds`."""
    engine = predictor(model)
    return [run_once(engine, call) for call in feeds]
