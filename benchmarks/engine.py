"""A repository's networks alone, as the server loads them.

    python benchmarks/engine.py REPOSITORY [--networks text_encoder unet] [--rows 2 32]

A line of JSON for each network, batch and way, with CUDA graphs or without: seconds of runs with
everything on the device already (`engine`), from the host's memory and back to it (`run`), and the
latter each after a millisecond in which the device had nothing to do (`rested`). `difference` is to
the outputs of model.onnx on the CPU, where that has its weights: norm over norm.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnxruntime
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from triptych.fastdeploy import providers, tuning
from triptych.fastdeploy.accelerators import parse
from triptych.fastdeploy.network import Network
from triptych.model_files import ModelFiles
from triptych.names import NETWORKS

TUNING = "graph_batches"
MEASURED = ("text_encoder", "text_encoder_2", "vae_decoder", "unet")
"""Networks, of those in the repository, where none are named."""


def config(repository: Path, model: str) -> dict[str, Any]:
    """config.pbtxt, as Triton gives it to Python models."""
    text = (repository / model / "config.pbtxt").read_text()
    message = text_format.Parse(text, model_config_pb2.ModelConfig())
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def seconds(work: Callable[[], object], least: float, runs: int, pause: float = 0.0) -> list[float]:
    """What each run takes: `runs` of them, or as many as fill `least` seconds, after two more.

    `pause` seconds come before each.
    """
    taken: list[float] = []
    work()
    work()
    end = time.perf_counter() + least
    while len(taken) < runs or (time.perf_counter() < end and len(taken) < 20 * runs):
        time.sleep(pause)
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return taken


def engine(network: Network, batch: int) -> Callable[[], object]:
    """A run of what the last one had, on the device from end to end."""
    key = next(key for key in network._bound._slots if key[0] == batch)
    slot = network._bound._slots[key]
    return lambda: slot._session.run_with_iobinding(slot._binding, slot._options)


def on_cpu(
    file: Path, requests: dict[int, dict[str, np.ndarray]]
) -> dict[int, dict[str, np.ndarray]]:
    """The outputs of the graph in `file` for each batch's request; empty where there is no file."""
    if not file.exists():
        return {}
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {
        batch: dict(zip(names, session.run(names, request))) for batch, request in requests.items()
    }


def difference(result: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Norm over norm, of the output where it is largest."""
    return float(
        max(
            np.linalg.norm(output - wanted[name]) / np.linalg.norm(wanted[name])
            for name, output in result.items()
        )
    )


def measure(
    repository: Path, model: str, batches: list[int], inputs: Callable, options: argparse.Namespace
) -> None:
    """Print the lines of one network."""
    asked = config(repository, model)
    usual = asked.setdefault("parameters", {})
    accelerators = parse(asked)
    most = min(shape[0] for shape in accelerators.shapes["max_shape"].values())
    most = min(most, tuning.max_rows(asked) or most)
    requests = {batch: inputs(batch) for batch in sorted({min(one, most) for one in batches})}
    wanted = on_cpu(repository / model / "1" / "model.onnx", requests)
    chosen, _ = providers.choose(
        accelerators, providers.unusable(onnxruntime.get_available_providers())
    )
    graphs = options.device == "cuda" and chosen[0][0] == providers.CUDA
    for way, parameters in ways(usual, batches, graphs).items():
        asked["parameters"] = parameters
        begun = time.perf_counter()
        network = Network(repository / model / "1", asked)
        about = {"provider": network.provider, "loading": time.perf_counter() - begun}
        recorded = network._bound is not None and bool(parameters.get(TUNING))
        for batch, request in requests.items():
            if not recorded:  # the same buffers, no graphs
                network.bind([batch], (options.device, 0))
            (result,) = network.run([request])
            if isinstance(result, Exception):
                raise result
            run = functools.partial(network.run, [request])
            line = {
                "network": model,
                "batch": batch,
                "way": way,
                "run": seconds(run, options.seconds, options.runs),
                "rested": seconds(run, options.seconds, options.runs, pause=0.001),
                "engine": seconds(engine(network, batch), options.seconds, options.runs),
                "difference": difference(result, wanted[batch]) if wanted else None,
                "finite": all(np.isfinite(output).all() for output in result.values()),
            }
            print(json.dumps({**line, **about}, default=bool), flush=True)


def ways(usual: dict[str, Any], batches: list[int], graphs: bool) -> dict[str, dict[str, Any]]:
    """Names of what is compared, each with the parameters of config.pbtxt.

    With CUDA graphs and without, or without alone.
    """
    plain = {name: value for name, value in usual.items() if name != TUNING}
    if not graphs:
        return {"no graph": plain}
    return {
        "graph": {**plain, TUNING: {"string_value": " ".join(map(str, batches))}},
        "no graph": plain,
    }


def inputs(repository: Path) -> dict[str, Callable[[int], dict[str, np.ndarray]]]:
    """Of each network: random inputs of so many rows, at the model's own size."""
    model_files = ModelFiles.load(repository / "unet_loop" / "1")
    latents = model_files.latent_shape(model_files.height, model_files.width)
    random = np.random.RandomState(0)
    shapes = config(repository, "unet")["optimization"]["execution_accelerators"]
    usual = next(
        entry["parameters"]
        for entry in shapes["gpu_execution_accelerator"]
        if entry["name"] == "opt_shape"
    )
    length, width = map(int, usual["encoder_hidden_states"].split()[1:])
    of_sdxl = {
        name: int(usual[name].split()[1]) for name in ("text_embeds", "time_ids") if name in usual
    }

    def unet(batch: int) -> dict[str, np.ndarray]:
        return {
            **{name: random.uniform(0, 1, (batch, n)).astype("f4") for name, n in of_sdxl.items()},
            "sample": random.standard_normal((batch, *latents)).astype(np.float32),
            "timestep": np.full(batch, 500, np.float32),
            "encoder_hidden_states": random.standard_normal((batch, length, width)).astype("f4"),
        }

    def text_encoder(batch: int) -> dict[str, np.ndarray]:
        return {
            "input_ids": random.randint(0, 100, (batch, length)).astype(np.int32),
            "prompt_weights": np.ones((batch, length), np.float32),
            "clip_skip": np.zeros((batch, 1), np.int32),
        }

    def vae_decoder(batch: int) -> dict[str, np.ndarray]:
        return {"latent_sample": random.standard_normal((batch, *latents)).astype(np.float32)}

    def vae_encoder(batch: int) -> dict[str, np.ndarray]:
        shape = (batch, 3, model_files.height, model_files.width)
        return {"sample": random.standard_normal(shape).astype(np.float32)}

    return {
        "text_encoder": text_encoder,
        "text_encoder_2": text_encoder,
        "unet": unet,
        "vae_decoder": vae_decoder,
        "vae_encoder": vae_encoder,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 16, 32])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=10, help="at least")
    options = parser.parse_args()
    made = inputs(options.repository)
    batches = {"text_encoder": [1, 2], "text_encoder_2": [1, 2], "unet": options.rows}
    usual_ones = [name for name in MEASURED if (options.repository / name).is_dir()]
    for name in options.networks or usual_ones:
        measure(options.repository, name, batches.get(name, [1, 8]), made[name], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
