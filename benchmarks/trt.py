"""Networks served on TensorRT, beside ONNX Runtime's CUDA and the CPU.

    make bench-tensorrt FLAGS="[--repository DIR] [--models text_encoder vae_decoder] ..."

On a machine with an NVIDIA GPU: in turn the CPU, CUDA, TensorRT with engines to build and TensorRT
with the engines that were kept. What is printed: seconds until the server is ready, what each
network runs on, milliseconds a run of it alone, milliseconds a picture, and its PSNR beside the
first way's. The shapes are those of the repository's config.pbtxt. Graphs without weights
(benchmarks/weightless.py) get random ones.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tritonclient.grpc as grpcclient
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import machine, weightless
from triptych.names import NETWORKS
from triptych.server import runs_on
from triptych.server.running import RunningServer
from triptych_export.config_edits import with_accelerator, with_cache_file

KEPT = "TensorRT, kept"
WAYS = ("CPU", "CUDA", "TensorRT", KEPT)


def main() -> int:
    options = _options()
    versions = ("onnxruntime-gpu", "tensorrt", "nvidia-cudnn-cu11", "nvidia-pytriton", "numpy")
    about = {"hardware": machine.hardware(), "gpu": machine.gpu()}
    about["versions"] = machine.versions(*versions)
    print(*about.values(), sep="\n", flush=True)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        repository = Path(scratch) / "repository"
        shutil.copytree(options.repository, repository)
        weightless.fill_repository(repository)
        cache = options.cache or Path(scratch) / "engines"
        expected: list[np.ndarray] = []
        for way in named(options.ways, options.models, cache):
            print(f"--- {way}", flush=True)
            folder = Path(scratch) / "way"
            shutil.copytree(repository, folder, copy_function=weightless.link)
            configure(folder, way, options.models, cache)
            results[way] = measured = serve(folder, way, options, expected)
            if way != "CPU" and not (way == KEPT and "TensorRT" in results):
                measured["alone"] = alone(folder, options)
            print(json.dumps(measured), flush=True)
            shutil.rmtree(folder)
            if options.output:
                options.output.write_text(json.dumps({**about, "results": results}))
    print(*table(results), sep="\n")
    return 0


def named(ways: list[str], models: list[str], cache: Path) -> list[str]:
    """The ways, without TensorRT's with engines to build where `cache` has those of all models."""
    kept = all(any(cache.glob(f"{model}_*")) for model in models)
    return list(dict.fromkeys(KEPT if kept and way == "TensorRT" else way for way in ways))


def configure(repository: Path, way: str, models: list[str], cache: Path) -> None:
    """Let the networks called `models` run that way, the others by ONNX Runtime."""
    for model in NETWORKS:
        path = repository / model / "config.pbtxt"
        if not path.exists():
            continue
        config = path.read_text()
        if way.startswith("TensorRT") and model in models:
            config = with_accelerator(config, "tensorrt")
            config = with_cache_file(config, cache / f"{model}.trt")
        else:
            config = with_accelerator(config, "onnxruntime")
        path.write_text(config)


def serve(
    repository: Path, way: str, options: argparse.Namespace, expected: list[np.ndarray]
) -> dict[str, Any]:
    """What the server measures up to; its pictures become those `expected`, if there are none."""
    log = repository / "log"
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if way == "CPU" else {}
    running = RunningServer(repository, log)
    begun = time.monotonic()
    with mock.patch.dict(os.environ, hidden):
        running.start()
    try:
        running.wait_ready(options.limit)
        measured: dict[str, Any] = {"ready": time.monotonic() - begun}
        with grpcclient.InferenceServerClient(running.grpc) as client:
            draw(client, 0, options)
            taken, pictures = [], []
            for seed in range(options.pictures):
                begun = time.perf_counter()
                answer = draw(client, seed, options)
                taken.append(time.perf_counter() - begun)
                picture = Image.open(io.BytesIO(base64.b64decode(answer)))
                pictures.append(np.asarray(picture, np.float64))
    finally:
        running.stop()
        lines = log.read_text(errors="replace").splitlines()
        found = [line for line in lines if "runs on" in line or "rror" in line]
        print(*(line[:500] for line in found), sep="\n", flush=True)
    if not expected:
        expected.extend(pictures)
    measured["runs_on"] = runs_on.summary(filter(None, map(runs_on.find, lines)))
    measured["picture"] = taken
    measured["psnr"] = [psnr(*pair) for pair in zip(pictures, expected)]
    return measured


def draw(client: grpcclient.InferenceServerClient, seed: int, options: argparse.Namespace) -> bytes:
    """The base64 of a picture."""
    request = {"prompt": "a red circle on a blue background", "seed": seed}
    if options.steps:
        request["num_inference_steps"] = options.steps
    tensor = grpcclient.InferInput("INPUT_0", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[json.dumps(request).encode()]], dtype=object))
    return client.infer("sd_ensemble", [tensor]).as_numpy("OUTPUT_0").item()


def psnr(picture: np.ndarray, expected: np.ndarray) -> float:
    """Decibels; infinite where they are equal."""
    error = float(np.mean((picture - expected) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def alone(repository: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """benchmarks/engine.py's lines for the networks that may run on TensorRT."""
    device = "cpu" if machine.gpu() == "no GPU" else "cuda"
    script = [CHECKOUT / "benchmarks" / "engine.py", repository, "--device", device]
    script += ["--networks", *options.models]
    run = subprocess.run(
        [sys.executable, *map(str, script)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=options.limit,
        check=True,
    )
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def table(results: dict[str, Any]) -> list[str]:
    """Rows of Markdown: of each way, and of each network alone."""
    rows = ["| way | ready, s | a picture, ms | PSNR, dB | networks |", "| --- " * 5 + "|"]
    for way, measured in results.items():
        picture = 1e3 * np.median(measured["picture"])
        least, most = min(measured["psnr"]), max(measured["psnr"])
        rows.append(
            f"| {way} | {measured['ready']:.1f} | {picture:.1f} | {least:.1f} to {most:.1f} "
            f"| {measured['runs_on']} |"
        )
    names = "network, rows | way | loading, s | on the device, ms | host, ms | difference | runs on"
    rows += ["", f"| {names} |", "| --- " * 7 + "|"]
    for way, measured in results.items():
        for line in measured.get("alone", ()):
            device, host = (1e3 * np.median(line[name]) for name in ("engine", "run"))
            apart = "" if line["difference"] is None else f"{line['difference']:.1e}"
            cells = (
                *(f"{line['network']}, {line['batch']}", f"{way}, {line['way']}"),
                *(f"{line['loading']:.1f}", f"{device:.3f}", f"{host:.3f}"),
                *(apart, line["provider"]),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repository", type=Path, default=CHECKOUT / "model_repository")
    add("--models", nargs="+", choices=NETWORKS, default=["text_encoder", "vae_decoder"])
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    add("--pictures", type=int, default=5)
    add("--steps", type=int, help="of a picture (the model's)")
    add("--cache", type=Path, help="folder of the engines: those that it holds are loaded")
    add("--limit", type=float, default=1800, help="seconds to load a way, and to measure it")
    add("--output", type=Path, help="file for everything as JSON")
    add("--scratch", type=Path, help="where the repositories are made")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
