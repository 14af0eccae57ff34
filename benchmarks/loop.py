"""What a step of the served loop costs beside the UNet: it is served with one that does nothing.

    python benchmarks/loop.py [--scheduler ddim] [--channel]

Latents and text embeddings are those of Stable Diffusion 1.5 at 512x512, with guidance. For 1, 4
and 16 images at a time: milliseconds a call of the UNet, in the loop alone and served. The latter
are a slope, between requests of few steps and of many: nothing else of a request is in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as grpcclient
from onnx import TensorProto, helper

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import machine
from benchmarks.load import percentile
from triptych.denoise.conditioning import of_prompts
from triptych.denoise.denoising import Denoising
from triptych.denoise.loop import DenoisingLoop
from triptych.model_files import ModelFiles
from triptych.server.running import RunningServer
from triptych.settings import Settings
from triptych_export.config_edits import parameter

MODEL_FILES = {"height": 512, "width": 512}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}
CHANNEL = parameter("channel", "true")
# A second thread, of no use here, would be in the way of the loop's, which a GPU is not.
ONE_THREAD = """\
cpu_execution_accelerator : [
      { name: "onnxruntime" parameters { key: "cpu_threads" value: "1" } }
    ]
    gpu_execution_accelerator :"""

STEPS = 50
IMAGES = (1, 4, 16)
EMBEDS = (77, 768)


def write_loop(folder: Path) -> None:
    """unet_loop, of Stable Diffusion 1.5's numbers."""
    shutil.copytree(CHECKOUT / "model_repository" / "unet_loop", folder / "unet_loop")
    version = folder / "unet_loop" / "1"
    (version / "pipeline.json").write_text(json.dumps(MODEL_FILES))
    (version / "scheduler_config.json").write_text(json.dumps(SCHEDULER))


def write_repository(folder: Path, channel: bool) -> Path:
    """unet_loop and a unet that gives its sample back, nearly, and reads its other inputs."""
    write_loop(folder)
    ignored = shutil.ignore_patterns("*.onnx", "*.data", "loras")
    shutil.copytree(CHECKOUT / "model_repository" / "unet", folder / "unet", ignore=ignored)
    config = folder / "unet" / "config.pbtxt"
    text = config.read_text().replace("gpu_execution_accelerator :", ONE_THREAD, 1)
    config.write_text(text + CHANNEL if channel else text)
    floats = TensorProto.FLOAT
    nodes = [
        helper.make_node("Slice", ["encoder_hidden_states", "begin", "end", "axes"], ["one"]),
        helper.make_node("Unsqueeze", ["one", "axis"], ["one_of_four"]),
        helper.make_node("Unsqueeze", ["timestep", "last"], ["when"]),
        helper.make_node("Mul", ["one_of_four", "when"], ["both"]),
        helper.make_node("Mul", ["both", "little"], ["less"]),
        helper.make_node("Mul", ["sample", "little"], ["small"]),
        helper.make_node("Add", ["small", "less"], ["out_sample"]),
    ]
    numbers = {"begin": [0, 0], "end": [1, 1], "axes": [1, 2], "axis": [3], "last": [1, 2, 3]}
    weights = [
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        for name, values in numbers.items()
    ]
    weights.append(helper.make_tensor("little", floats, [1], [1e-3]))
    sample = ["batch", 4, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "nothing",
        [
            helper.make_tensor_value_info("sample", floats, sample),
            helper.make_tensor_value_info("timestep", floats, ["batch"]),
            helper.make_tensor_value_info("encoder_hidden_states", floats, ["batch", "l", "c"]),
        ],
        [helper.make_tensor_value_info("out_sample", floats, sample)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "unet" / "1").mkdir(exist_ok=True)
    onnx.save(model, folder / "unet" / "1" / "model.onnx")
    return folder


def in_process(count: int, settings: Settings, folder: Path) -> float:
    """Seconds a call, the UNet a function that returns."""
    model_files = ModelFiles.load(folder / "unet_loop" / "1")
    outputs: dict[tuple, np.ndarray] = {}

    def nothing(sample: np.ndarray, *_: np.ndarray) -> np.ndarray:
        return outputs.setdefault(sample.shape, np.full(sample.shape, 0.01, np.float32))

    rows = of_prompts(embeds(1), embeds(0))
    images = [Denoising(settings, *rows, model_files) for _ in range(count)]
    begun = time.perf_counter()
    for result in DenoisingLoop(nothing, 32).run_to_end(images):
        if isinstance(result, Exception):
            raise result
    return (time.perf_counter() - begun) / STEPS


def served(count: int, settings: Settings, client: grpcclient.InferenceServerClient) -> float:
    """Seconds a call of the served UNet, one request at a time with `count` images."""
    few, many = (
        request(count, dataclasses.replace(settings, num_inference_steps=steps), client)
        for steps in (STEPS // 5, STEPS)
    )
    return (many - few) / (STEPS - STEPS // 5)


def request(count: int, settings: Settings, client: grpcclient.InferenceServerClient) -> float:
    inputs = []
    for name, values in (("prompt_embeds", embeds(1)), ("negative_prompt_embeds", embeds(0))):
        inputs.append(grpcclient.InferInput(name, [count, *EMBEDS], "FP32"))
        inputs[-1].set_data_from_numpy(np.stack([values] * count))
    inputs.append(grpcclient.InferInput("settings", [count, 1], "BYTES"))
    texts = [[settings.to_json().encode()]] * count
    inputs[-1].set_data_from_numpy(np.array(texts, dtype=object))
    inputs.append(grpcclient.InferInput("pictures", [count, 2], "BYTES"))
    inputs[-1].set_data_from_numpy(np.full((count, 2), b"", dtype=object))
    begun = time.perf_counter()
    client.infer("unet_loop", inputs)
    return time.perf_counter() - begun


def embeds(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(EMBEDS).astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scheduler", default="ddim")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--channel", action="store_true", help="unet's parameter of that name")
    options = parser.parse_args()
    settings = Settings("a prompt", "", STEPS, 7.5, 1, 512, 512, options.scheduler, "png")
    print(machine.hardware())
    print(machine.versions("onnxruntime", "numpy"), "scheduler", options.scheduler)
    print("| images | loop alone, ms a call (quartiles) | served |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_repository(Path(scratch) / "repository", options.channel)
        with RunningServer(folder, Path(scratch) / "log") as running:
            client = grpcclient.InferenceServerClient(running.grpc)
            for count in IMAGES:
                cells = []
                for measure, where in ((in_process, folder), (served, client)):
                    measure(count, settings, where)
                    runs = [measure(count, settings, where) for _ in range(options.rounds)]
                    low, middle, high = (1e3 * percentile(runs, p) for p in (25, 50, 75))
                    cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
                print(f"| {count} | {' | '.join(cells)} |", flush=True)
            client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
